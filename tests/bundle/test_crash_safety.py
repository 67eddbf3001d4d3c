"""A change that is killed, or that the disk has no room for, leaves the old bundle or the new one."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fork_server import ForkServer
from tiny import Outcome, finish, fork

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Outcome]]:
    """Return a function that runs a script beside this file in a process of its own."""
    scratch = tmp_path_factory.mktemp("scratch")
    variables = {"PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE}"}
    with closing(ForkServer("pytest", "PIL.Image", "edgevit.bundle.store", "edgevit.bundle.transaction")) as server:
        yield lambda script, *arguments: finish(
            fork(server, *arguments, what=HERE / script, scratch=scratch, variables=variables)
        )


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
def test_interrupted_at_every_call_leaves_the_old_bundle_or_the_new(run, scenario: str, mode: str, tmp_path: Path):
    done = run("crash_points.py", scenario, mode, tmp_path)
    assert done.code == 0, done.err
    counts = json.loads(done.out)
    assert counts["old"] >= 5, "it was interrupted at hardly any point"
    assert mode == "full" or counts["new"] >= 5


@pytest.mark.parametrize("limit", [0, 10, 1000, 150_000])
def test_a_write_that_fails_midway_leaves_nothing_of_a_new_bundle(run, limit: int, tmp_path: Path):
    path = tmp_path / "new.edgevit"
    done = run("limited_write.py", path, limit, "refuse")
    assert done.code == 3, done.err
    assert "File too large" in done.out
    assert not path.exists()


@pytest.mark.parametrize(("limit", "change"), [(0, "add"), (1000, "add"), (50_000, "add"), (1000, "replace")])
def test_a_write_that_fails_midway_leaves_the_bundle_as_it_was(
    run, limit: int, change: str, tmp_path: Path, make_bundle
):
    before = make_bundle(tmp_path / "old.edgevit")
    done = run("limited_write.py", before.path, limit, change)
    assert done.code == 3, done.err
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
