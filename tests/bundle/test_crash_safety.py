"""A change that is killed, or that the disk has no room for, leaves the old bundle or the new one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE}"}
    command = [sys.executable, "-W", "error", *script.split("\0"), *(str(argument) for argument in arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("scenario", "mode"),
    [
        ("create", "kill"),
        ("create", "full"),
        pytest.param("replace_whole", "kill", marks=pytest.mark.slow),
        ("replace_whole", "full"),
        pytest.param("rebuild", "kill", marks=pytest.mark.slow),
        ("rebuild", "full"),
        ("add", "kill"),
        ("add", "full"),
        ("replace", "kill"),
        ("replace", "full"),
        ("update", "kill"),
        ("update", "full"),
        ("extra", "full"),
    ],
)
def test_interrupted_at_every_call_leaves_the_old_bundle_or_the_new(scenario: str, mode: str, tmp_path: Path):
    done = run(str(HERE / "crash_points.py"), scenario, mode, tmp_path)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["old"] >= 5, "it was interrupted at hardly any point"
    assert mode == "full" or counts["new"] >= 5


LIMITED = """
import resource, sys
from pathlib import Path
from conftest import add_int8, make_bundle
from edgevit.bundle.store import Bundle
from edgevit.errors import StorageError

path, limit, existing = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
(path.parent / "source200000.onnx").write_bytes(b"x" * 200_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # Python ignores SIGXFSZ, so a write ends in EFBIG
try:
    if existing == "add":
        add_int8(Bundle.open(path), b"x" * 2000)
    else:
        make_bundle(path, b"x" * 200_000, existing=existing)
except StorageError as error:
    print(error.message, "|", error.remedy)
    sys.exit(3)
"""


@pytest.mark.parametrize("limit", [0, 10, 1000, 150_000])
def test_a_write_that_fails_midway_leaves_nothing_of_a_new_bundle(limit: int, tmp_path: Path):
    path = tmp_path / "new.edgevit"
    done = run(f"-c\0{LIMITED}", path, limit, "refuse")
    assert done.returncode == 3, done.stderr
    assert "File too large" in done.stdout
    assert not path.exists()


@pytest.mark.parametrize(("limit", "change"), [(0, "add"), (1000, "add"), (50_000, "add"), (1000, "replace")])
def test_a_write_that_fails_midway_leaves_the_bundle_as_it_was(limit: int, change: str, tmp_path: Path, make_bundle):
    before = make_bundle(tmp_path / "old.edgevit")
    done = run(f"-c\0{LIMITED}", before.path, limit, change)
    assert done.returncode == 3, done.stderr
    after = type(before).open(before.path)
    assert after.manifest == before.manifest
    after.verify_files("float32")
    assert not (before.path / ".draft").exists()


def test_an_interrupt_while_a_variant_is_written_leaves_the_bundle_as_it_was(bundle):
    def interrupted(folder: Path) -> list[Path]:
        (folder / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bundle.add_variant("int8", precision="int8", backend="openvino", target="any", fill=interrupted)
    assert {entry.name for entry in bundle.path.iterdir()} == {".lock", "manifest.json", "float32", "golden"}
    assert type(bundle).open(bundle.path).manifest == bundle.manifest
