"""A training run's folder: what it does, where it stands, and what it made.

.. code-block:: text

    RUN/job.json            data, architecture and recipe
    RUN/state.pt            weights, averages and optimizer after the last whole epoch
    RUN/metrics.jsonl       one line for each epoch
    RUN/curves.png          loss and accuracy
    RUN/model.safetensors   the averaged weights, ready to export
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import torch

from edgevit.data.preprocess import Preprocess
from edgevit.errors import EdgeViTError, InputError
from edgevit.files import atomic_path, storage_errors, write_atomically
from edgevit.models.checkpoints import TORCH_LOAD_ERRORS
from edgevit.models.spec import ModelSpec
from edgevit.training.recipe import Recipe


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that decides what a run ends with: two runs of one job on one machine give the same weights.

    ``initial_sha256`` is that of the weights it starts from.
    """

    data: str
    data_sha256: str
    spec: ModelSpec
    preprocess: Preprocess
    labels: tuple[str, ...]
    recipe: Recipe
    initial_sha256: str


class EpochMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What one epoch gave; accuracies in 0..1, ``seconds`` of wall time."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    seconds: float


class RunFolder:
    """The files of one run, each replaced whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model.safetensors"
        self.curves = path / "curves.png"
        self._job = path / "job.json"
        self._state = path / "state.pt"
        self._metrics = path / "metrics.jsonl"

    def check_new(self) -> None:
        """Check that a run could begin here.

        Raises:
            InputError: if there is something in the folder already.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise InputError(
                f"{self.path} exists already",
                remedy="go on with that run by --resume, or give another folder with -o",
            )

    def begin(self, job: Job) -> dict[str, Any] | None:
        """Make the folder for a new run; there is no state to go on from.

        Raises:
            InputError: if there is something in it already.
        """
        self.check_new()
        write_atomically(self._job, msgspec.json.format(msgspec.json.encode(job)))
        return None

    def resume(self, job: Job) -> dict[str, Any] | None:
        """Return the state that the run stopped in, None if it had not finished an epoch.

        Raises:
            InputError: if there is no run, or it is one of another job.
        """
        try:
            before = msgspec.json.decode(self._job.read_bytes(), type=Job)
        except FileNotFoundError:
            raise InputError(f"there is no run in {self.path}", remedy="start it without --resume") from None
        except (msgspec.MsgspecError, EdgeViTError) as error:
            raise InputError(f"{self._job} is damaged: {error}", remedy="start the run again elsewhere") from error
        different = _differences(before, job)
        if different:
            raise InputError(
                f"the run in {self.path} was started with other {', '.join(different)}",
                remedy="resume with the same options as it was started with, or start a new run",
            )
        if not self._state.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        except TORCH_LOAD_ERRORS as error:
            raise InputError(f"{self._state} is damaged", remedy="start the run again elsewhere") from error
        return state

    def save_state(self, state: dict[str, Any]) -> None:
        """Keep where the run stands."""
        # Through memory: told that a disk is full, torch's own writer raises errors that do not say so.
        content = io.BytesIO()
        torch.save(state, content)
        with atomic_path(self._state) as draft:
            draft.write_bytes(content.getbuffer())

    def metrics(self) -> list[EpochMetrics]:
        """Return what the epochs so far gave."""
        if not self._metrics.exists():
            return []
        lines = self._metrics.read_bytes().splitlines()
        try:
            return [msgspec.json.decode(line, type=EpochMetrics) for line in lines]
        except msgspec.MsgspecError as error:
            raise InputError(f"{self._metrics} is damaged: {error}", remedy="start the run again elsewhere") from error

    def save_metrics(self, metrics: list[EpochMetrics]) -> None:
        """Keep what the epochs so far gave."""
        write_atomically(self._metrics, b"".join(msgspec.json.encode(epoch) + b"\n" for epoch in metrics))

    def plot(self, metrics: list[EpochMetrics]) -> None:
        """Draw loss and accuracy over the epochs."""
        from matplotlib.figure import Figure  # takes a second to import, and only training draws

        figure = Figure(figsize=(10, 4), layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        epochs = [row.epoch for row in metrics]
        for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
            axes.plot(epochs, [getattr(row, f"train_{name}") for row in metrics], label="training (augmented)")
            tested = [getattr(row, f"test_{name}") for row in metrics]
            if any(value is not None for value in tested):
                axes.plot(epochs, tested, label="test (averaged weights)")
            axes.set(xlabel="epoch", ylabel=name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.legend()
        with storage_errors(self.curves), atomic_path(self.curves) as draft:
            figure.savefig(draft, dpi=120)


def _differences(before: Job, now: Job) -> list[str]:
    recipe = [name for name in Recipe.__struct_fields__ if getattr(before.recipe, name) != getattr(now.recipe, name)]
    others = [name for name in Job.__struct_fields__ if getattr(before, name) != getattr(now, name)]
    return [name for name in others if name != "recipe"] + recipe
