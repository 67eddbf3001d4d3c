"""A bundle's answers on emulated ARM64 beside this machine's, with EDGEVIT_ARM64_ROOT.

That is a folder which ``python scripts/check_arm64.py --root FOLDER`` has made, with qemu in it or installed here.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_arm64.py"
ROOT = os.environ.get("EDGEVIT_ARM64_ROOT")


def missing_reason():
    """Return why nothing can be emulated here, or None."""
    if ROOT is None:
        return f"EDGEVIT_ARM64_ROOT names no folder that python scripts/{SCRIPT.name} --root FOLDER has made"
    if not (Path(ROOT) / "ready").is_file():
        return f"{ROOT} is not ready: run python scripts/{SCRIPT.name} --root {ROOT}"
    if not any(map(shutil.which, ("qemu-aarch64-static", "qemu-aarch64"))) and not (Path(ROOT) / "qemu").is_dir():
        return f"qemu is neither installed nor in {ROOT}"
    return None


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.timeout(1800)
@pytest.mark.skipif(missing_reason() is not None, reason=missing_reason() or "")
def test_answers_on_arm64_are_this_machines():
    done = subprocess.run([sys.executable, SCRIPT, "--root", ROOT, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    rows = {(row["variant"], row["images"]): row for row in found["rows"]}
    for variant, bound in (("float32-openvino", 1e-4), ("int8-openvino", 0.05)):
        for images in (1, 2, 3):
            row = rows[variant, images]
            assert row["difference"] <= bound, row
            assert (row["classes"], row["golden"]) == (images, None), row
    # Unless OpenVINO has mended it, in which case ARM64 needs no exception any more: with a dynamic batch it is wrong.
    dynamic = {row["images"]: row["difference"] for row in found["dynamic"] if row["variant"] == "int8-openvino"}
    assert min(dynamic[2], dynamic[3]) > 1, dynamic


def test_a_folder_that_is_no_root_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYTHONPATH", str(SCRIPT.parents[1]))
    done = subprocess.run([sys.executable, SCRIPT, "--root", tmp_path], capture_output=True, text=True)
    assert done.returncode == 3
    assert "this takes a Debian or one like it" in done.stderr
