"""A ViT so small that it goes through every stage in seconds, and what tests need to take it there."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fork_server import Forked, ForkServer
from kept_shapes import SHAPES as SHAPES

from edgevit.backends import BACKENDS, backend_class
from edgevit.cli.app import run
from edgevit.data.preprocess import Preprocess
from edgevit.data.shapes import load_shapes
from edgevit.models.spec import ModelSpec

SPEC = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, heads=2, classes=8)
PREPROCESS = Preprocess(size=(16, 16), resize=16, mean=(0.5,) * 3, std=(0.25,) * 3)
ENGINES = tuple(name for name in BACKENDS if not backend_class(name).builds_on_device)
VARIANTS = ("float32", "float32-onnxruntime", "int8-onnxruntime", "float32-openvino", "int8-openvino")
#: How many tokens the blocks of the model merge, by budget; of 16 patches.
SCHEDULES = {0.8: (4, 0), 0.6: (7, 2)}
MERGED = (*VARIANTS, "int8-openvino-tokens80", "int8-onnxruntime-tokens60", "int8-openvino-tokens60")


def write_checkpoint(path: Path) -> Path:
    """Train for a few seconds, so that answers depend on the image, and write the checkpoint to ``path``."""
    import torch

    from edgevit.data.batches import load_pixels
    from edgevit.models.checkpoints import Checkpoint
    from edgevit.models.vit import VisionTransformer

    data = load_shapes("train", "size=16,count=768")
    images = torch.from_numpy(PREPROCESS.normalize(load_pixels(data, PREPROCESS)))
    labels = torch.from_numpy(data.labels)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the layers are too small to share
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionTransformer(SPEC)
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for _ in range(15):
            for chosen in torch.randperm(len(labels)).split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
                optimizer.step()
    torch.set_num_threads(threads)
    Checkpoint(SPEC, model.state_dict(), PREPROCESS, data.class_names, source="shapes").save(path)
    return path


def write_headless(checkpoint: Path, path: Path) -> Path:
    """Write the checkpoint without its head to ``path``: an embedding model."""
    from dataclasses import replace

    import msgspec

    from edgevit.models.loading import load_checkpoint

    whole = load_checkpoint(str(checkpoint))
    weights = {name: tensor for name, tensor in whole.weights.items() if not name.startswith("head.")}
    replace(whole, spec=msgspec.structs.replace(whole.spec, classes=0), weights=weights, labels=()).save(path)
    return path


def merge_tokens(path: Path) -> None:
    """Add variants to the bundle at ``path`` whose tokens are merged by ``SCHEDULES``, without a search for these."""
    from edgevit.bundle.manifest import TokenMerging
    from edgevit.bundle.store import Bundle
    from edgevit.data.batches import Unreadable
    from edgevit.stages.chosen import targets_for_dialect
    from edgevit.stages.images import DataSource
    from edgevit.stages.quantize import quantize

    for budget, schedule in SCHEDULES.items():
        images = DataSource(SHAPES, "train", Unreadable(), samples=32)
        merging = TokenMerging(budget=budget, share=budget + 0.01, schedule=schedule)
        targets = targets_for_dialect("openvino" if budget == max(SCHEDULES) else "auto")
        quantize(Bundle.open(path), images, targets, merging=merging)


class Outcome(NamedTuple):
    """How a command ended, and what it said where."""

    code: int
    out: str
    err: str

    def data(self) -> Any:
        """Return the only JSON object on stdout."""
        return json.loads(self.out)

    def failure(self) -> tuple[str, str]:
        """Return the error and its remedy, which are the last two lines on stderr, and on stdout nothing."""
        assert self.out == ""
        assert "Traceback" not in self.err
        *_, message, remedy = self.err.splitlines()
        assert message.startswith("error: "), self.err
        assert remedy.startswith("  try: "), self.err
        return message.removeprefix("error: "), remedy.removeprefix("  try: ")


class CommandLine:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Outcome:
        self._capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Outcome(code, *self._capsys.readouterr())


def must_run(*arguments: object) -> None:
    """Run a command that fixtures build on."""
    assert run([*map(str, arguments), "--json"]) == 0, arguments


def start(*arguments: object, scratch: Path, file_size: int | None = None) -> subprocess.Popen[str]:
    """Start the command line in a process group of its own, with the folder ``scratch`` for temporary files.

    Signals are handled as on a terminal; a shell's background job, and so this test run, may ignore Ctrl-C. No file
    may grow beyond ``file_size`` bytes: a write that would do so fails as on a full disk, midway.
    """

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.Popen(
        [sys.executable, "-m", "edgevit", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(scratch),
        start_new_session=True,
        preexec_fn=prepare,  # the test run has no threads that hold locks then
    )


def fork(
    server: ForkServer,
    *arguments: object,
    scratch: Path,
    file_size: int | None = None,
    what: str | Path = "edgevit",
    variables: Mapping[str, str] | None = None,
) -> Forked:
    """Do what ``start`` does where it is not asked whether Python and the libraries start, too.

    ``what`` may be a script of the tests; ``variables`` are added to its environment.
    """
    environment = {**_environment(scratch), **(variables or {})}
    return server.start(str(what), [str(argument) for argument in arguments], environment, file_size)


def _environment(scratch: Path) -> dict[str, str]:
    scratch.mkdir(exist_ok=True)
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(scratch),
        # torch makes its compiler's cache in TMPDIR for good, unless it has another place.
        "TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.gettempdir()) / "edgevit-tests-torchinductor"),
    }


def finish(process: subprocess.Popen[str] | Forked) -> Outcome:
    """Wait for a process that ``start`` began."""
    out, err = process.communicate(timeout=200)
    return Outcome(process.returncode, out, err)


def content(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below ``folder``; the lock, which a change leaves, has nothing in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def entries(folder: Path) -> Sequence[str]:
    """Return the names of what is in ``folder``, hidden or not; ``.ses`` is a note of onnxruntime's own."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".ses")
