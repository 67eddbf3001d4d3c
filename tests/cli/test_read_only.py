"""Bundles on a disk that is mounted read-only: what only reads works, what writes ends with one line and exit 3."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import SHAPES, content

MOUNT = """mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@" """


def unshare(path, *command):
    """Run a command to which the folder ``path`` is read-only, in a namespace of its own: whoever runs it."""
    user = () if os.geteuid() == 0 else ("--map-root-user",)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["unshare", *user, "--mount", "sh", "-c", MOUNT, str(path), *map(str, command)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=200,
    )


@pytest.fixture
def read_only(tmp_path):
    """Return a function that runs the command line on a bundle that cannot be written."""
    place = tmp_path / "tried"
    place.mkdir()
    if shutil.which("unshare") is None or unshare(place, "sh", "-c", f"! touch {place}/x").returncode:
        pytest.skip("needs a system that lets a test mount a folder read-only (unshare --mount)")

    def run(command, bundle, *arguments):
        before = content(bundle)
        done = unshare(bundle, sys.executable, "-m", "edgevit", command, bundle, *arguments)
        assert content(bundle) == before
        assert "Traceback" not in done.stderr
        return done

    return run


def test_build(read_only, quantized):
    done = read_only("build", quantized, "--target", "x86-openvino", "--precision", "int8")
    assert done.returncode == 3
    assert f"error: cannot write {quantized}" in done.stderr
    assert "  try: " in done.stderr


def test_race_says_so_before_it_measures(read_only, quantized):
    done = read_only("race", quantized, "--target", "x86-onnxruntime", "--precision", "int8", "--data", SHAPES)
    assert done.returncode == 3
    assert f"error: cannot write {quantized}" in done.stderr
    assert "race the copy" in done.stderr
    assert "Validating" not in done.stderr


def test_quantize(read_only, exported):
    done = read_only("quantize", exported, "--precision", "int8-weights")
    assert done.returncode == 3
    assert "error: cannot write" in done.stderr


def test_a_device_needs_to_write_nothing(read_only, quantized, pictures):
    done = read_only("predict", quantized, pictures[0], "--variant", "int8-openvino")
    assert done.returncode == 0, done.stderr
