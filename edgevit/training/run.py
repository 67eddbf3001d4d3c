"""The folder of a training run.

.. code-block:: text

    RUN/job.json            data, architecture and recipe
    RUN/train.toml          the recipe as edgevit train --recipe takes it
    RUN/state.pt            weights, averages and optimizer after the last whole epoch
    RUN/metrics.jsonl       one line for each epoch
    RUN/curves.svg          loss and accuracy
    RUN/confusion.json      how often an image of each class was taken for each class; confusion.svg shows it
    RUN/model.safetensors   the averaged weights, ready to export
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch

from edgevit.data.preprocess import Preprocess
from edgevit.errors import InputError
from edgevit.files import atomic_path, write_atomically
from edgevit.json import JSONError, decode, read
from edgevit.models.checkpoints import TORCH_LOAD_ERRORS
from edgevit.models.spec import ModelSpec
from edgevit.training.recipe import TrainRecipe

_AGAIN = "start the run again in another folder"


class TrainJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that decides what a run ends with: two runs of one job on one machine give the same weights.

    ``initial_sha256`` is of the weights that it starts from, ``teacher_sha256`` of the teacher's and
    ``validation_sha256`` of the images that choose the epoch; both are "" without any. ``token_schedule`` says how many
    tokens each block merges, ``token_budget`` the share of the multiply-adds that was asked for.
    """

    data: str
    data_sha256: str
    validation_sha256: str = ""
    initial_sha256: str
    teacher_sha256: str = ""
    spec: ModelSpec
    preprocess: Preprocess
    labels: tuple[str, ...]
    recipe: TrainRecipe
    token_budget: float | None = None
    token_schedule: tuple[int, ...] = ()


class EpochMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What one epoch gave; accuracies in 0..1, ``seconds`` of wall time, of which ``waited`` were for images."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_loss: float | None = None
    test_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    seconds: float
    waited: float = 0.0


class RunFolder:
    """The files of one run, each replaced whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model.safetensors"
        self.curves = path / "curves.svg"
        self.confusion = path / "confusion.json"
        self.confusion_chart = path / "confusion.svg"
        self.recipe = path / "train.toml"
        self._job = path / "job.json"
        self._state = path / "state.pt"
        self._metrics = path / "metrics.jsonl"

    def check_new(self) -> None:
        """Check that a run could begin here.

        Raises:
            InputError: if there is something in the folder already.
        """
        if self.path.exists() and (not self.path.is_dir() or any(not _is_draft(each) for each in self.path.iterdir())):
            raise InputError(
                f"{self.path} exists already",
                remedy="go on with that run by --resume, or give another folder with -o",
            )

    def begin(self, job: TrainJob) -> dict[str, Any] | None:
        """Make the folder for a new run; there is no state to go on from.

        Raises:
            InputError: if there is something in it already.
        """
        self.check_new()
        write_atomically(self._job, msgspec.json.format(msgspec.json.encode(job)))
        return None

    def resume(self, job: TrainJob) -> dict[str, Any] | None:
        """Return the state that the run stopped in, None if it had not finished an epoch.

        Raises:
            InputError: if there is no run, or it is one of another job.
        """
        if not self._job.exists():
            raise InputError(f"there is no run in {self.path}", remedy="start it without --resume")
        try:
            before = read(self._job, TrainJob)
        except JSONError as error:
            raise InputError(f"{self._job} is damaged: {error}", remedy=_AGAIN) from error
        different = _differences(before, job)
        if different:
            raise InputError(
                f"the run in {self.path} was started with other {', '.join(different)}",
                remedy="resume with the same options as it was started with, or start a new run",
            )
        for draft in filter(_is_draft, self.path.iterdir()):
            shutil.rmtree(draft, ignore_errors=True)  # a kill left it
        return self.state()

    def keep_recipe(self, text: str) -> None:
        """Keep the recipe as a file that can be given again; after ``begin``, so that what a kill leaves is a run."""
        write_atomically(self.recipe, text.encode())

    def state(self) -> dict[str, Any] | None:
        """Return where the run stands, None if it has not begun to learn.

        Raises:
            InputError: if the file that says so is damaged.
        """
        if not self._state.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        except TORCH_LOAD_ERRORS as error:
            raise InputError(f"{self._state} is damaged", remedy=_AGAIN) from error
        return state

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Keep where the run stands."""
        # Through memory: told that a disk is full, torch's own writer raises errors that do not say so.
        content = io.BytesIO()
        torch.save(dict(state), content)
        with atomic_path(self._state) as draft:
            draft.write_bytes(content.getbuffer())

    def metrics(self) -> list[EpochMetrics]:
        """Return what the epochs so far gave.

        Raises:
            InputError: if the file that says so is damaged.
        """
        if not self._metrics.exists():
            return []
        lines = self._metrics.read_bytes().splitlines()
        try:
            return [decode(line, EpochMetrics) for line in lines]
        except JSONError as error:
            raise InputError(f"{self._metrics} is damaged: {error}", remedy=_AGAIN) from error

    def save_metrics(self, metrics: list[EpochMetrics]) -> None:
        """Keep what the epochs so far gave."""
        write_atomically(self._metrics, b"".join(msgspec.json.encode(epoch) + b"\n" for epoch in metrics))


def _is_draft(path: Path) -> bool:
    """Return whether a write that was killed left ``path`` behind (see edgevit/files.py)."""
    return path.name.startswith(".")


def _differences(before: TrainJob, now: TrainJob) -> list[str]:
    recipe = [
        name for name in TrainRecipe.__struct_fields__ if getattr(before.recipe, name) != getattr(now.recipe, name)
    ]
    others = [name for name in TrainJob.__struct_fields__ if getattr(before, name) != getattr(now, name)]
    return [name for name in others if name != "recipe"] + recipe
