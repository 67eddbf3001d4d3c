"""A run of ``edgevit train`` that is not finished: its averaged weights, if they are asked for by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from torch import Tensor

from edgevit.data.preprocess import Preprocess
from edgevit.errors import CheckpointError
from edgevit.json import JSONError, read
from edgevit.models.archives import read_pickle
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.spec import ModelSpec

_JOB, _STATE, _MODEL = "job.json", "state.pt", "model.safetensors"
_AVERAGE = "module."  # of torch's AveragedModel


class _Job(msgspec.Struct, frozen=True):
    """The part of RUN/job.json that says what the weights are of; edgevit/training/run.py writes it."""

    spec: ModelSpec
    preprocess: Preprocess
    labels: tuple[str, ...]


def unfinished(path: Path) -> Path | None:
    """Return the folder of the unfinished run that ``path`` is, or whose state it is; None if it is neither."""
    if path.name == _STATE and (path.parent / _JOB).is_file():
        return path.parent
    begun = path.is_dir() and (path / _JOB).is_file() and not (path / _MODEL).exists()
    return path if begun else None


def is_state(content: Mapping[object, object]) -> bool:
    """Return whether a pickle is a run's state.pt, under whatever name."""
    return {"epoch", "bfloat16", "model", "average", "optimizer"} <= content.keys()


def read_unfinished(run: Path, source: str, wanted: bool) -> Checkpoint:  # noqa: FBT001 - an option of the user's
    """Return the averaged weights of ``run`` after its last whole epoch, as they would be exported at the end.

    Raises:
        CheckpointError: if they are not ``wanted``, there are none yet, or the files are damaged.
    """
    finished = (run / _MODEL).exists()
    if not wanted:
        raise CheckpointError(
            f"{source} is where the run in {run} stands, which is finished"
            if finished
            else f"the run in {run} is not finished",
            remedy=f"give {run}"
            if finished
            else "finish it: the same edgevit train command with --resume; or --unfinished takes the averaged weights "
            "of its last whole epoch",
        )
    if not (run / _STATE).is_file():
        raise CheckpointError(
            f"the run in {run} has not finished an epoch", remedy="go on: the same edgevit train command with --resume"
        )
    job = _job(run / _JOB)
    state = read_pickle(run / _STATE)
    average = state.get("average")
    if not isinstance(average, Mapping):
        raise CheckpointError(f"{run / _STATE} is damaged: it has no averaged weights", remedy="start the run again")
    weights = {
        str(name).removeprefix(_AVERAGE): tensor.float()
        for name, tensor in average.items()
        if isinstance(tensor, Tensor) and str(name).startswith(_AVERAGE)
    }
    note = f"the run is not finished: took its averaged weights after epoch {state.get('epoch')}"
    return Checkpoint(job.spec, weights, job.preprocess, job.labels, source, notes=(note,))


def _job(path: Path) -> _Job:
    try:
        return read(path, _Job)
    except JSONError as error:
        raise CheckpointError(f"{path} is damaged: {error}", remedy="start the run again in another folder") from error
