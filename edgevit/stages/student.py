"""A run of ``edgevit train --token-budget`` as the float32 graph whose tokens are merged in place of a bundle's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgevit.bundle.store import Bundle
from edgevit.errors import InputError
from edgevit.json import JSONError, read
from edgevit.models.spec import ModelSpec
from edgevit.progress import SILENT, Progress
from edgevit.shell import quoted

_JOB = "job.json"


class StudentJob(msgspec.Struct, frozen=True):
    """The part of RUN/job.json that says what a run was for; edgevit/training/run.py writes it."""

    spec: ModelSpec
    teacher_sha256: str = ""
    token_budget: float | None = None
    token_schedule: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Student:
    """The float32 ONNX file ``path`` of a student, with all tokens still, and what it was trained to merge.

    ``schedule`` has a number of tokens for each block; ``budget`` is the share of the multiply-adds that was asked for.
    """

    path: Path
    schedule: tuple[int, ...]
    budget: float


def student_model(run: Path, bundle: Bundle, folder: Path, *, progress: Progress = SILENT) -> Student:
    """Write the student that ``run`` trained into ``folder``; its teacher must be the model of ``bundle``.

    Raises:
        InputError: if it is no such run, of another architecture, or of another teacher.
        CheckpointError: if the run is not finished, or damaged.
        GraphError: if the student cannot be exported.
    """
    job = job_if_any(run)
    if job is None:
        raise InputError(f"there is no run of edgevit train in {run}", remedy="give the folder that it wrote, with -o")
    manifest = bundle.manifest
    if not job.token_schedule or job.token_budget is None:
        raise InputError(
            f"the run in {run} was not trained for fewer tokens",
            remedy=f"train one: edgevit train --from {quoted(bundle.path)} --token-budget 0.7 --data IMAGES -o RUN",
        )
    options = f"--token-budget {job.token_budget:g} --data IMAGES -o RUN"
    again = f"train it again: edgevit train --from {quoted(bundle.path)} {options}"
    if job.spec != manifest.spec:
        raise InputError(f"the run in {run} is of another architecture than {bundle.path}", remedy=again)
    if job.teacher_sha256 != manifest.provenance.weights_sha256:
        raise InputError(f"the run in {run} learnt from other weights than those of {bundle.path}", remedy=again)
    from edgevit.graph.torch_export import export_onnx
    from edgevit.models.dense import DenseVisionTransformer
    from edgevit.models.loading import load_checkpoint

    checkpoint = load_checkpoint(str(run))
    model = checkpoint.model()
    if outputs := manifest.typed_outputs:
        model = DenseVisionTransformer(model, outputs).eval()
    path = folder / "student.onnx"
    export_onnx(
        model,
        path,
        preprocess=manifest.preprocess,
        labels=manifest.labels,
        activation=manifest.activation,
        progress=progress,
    )
    return Student(path, job.token_schedule, job.token_budget)


def job_if_any(run: Path) -> StudentJob | None:
    """Return what the run in the folder ``run`` was for, None if there is none.

    Raises:
        InputError: if it is damaged.
    """
    path = run / _JOB
    if not path.is_file():
        return None
    try:
        return read(path, StudentJob)
    except JSONError as error:
        raise InputError(f"{path} is damaged: {error}", remedy="train it again in another folder") from error
