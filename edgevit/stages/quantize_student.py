"""``edgevit quantize --student``: INT8 of weights that were trained for merged tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgevit.bundle.manifest import TokenMerging
from edgevit.bundle.store import Bundle
from edgevit.errors import InputError
from edgevit.files import scratch_folder, sha256_of
from edgevit.progress import SILENT, Progress
from edgevit.quantization.token_merging.losses import share_left
from edgevit.shell import quoted
from edgevit.stages.images import DataSource
from edgevit.stages.precisions import calibrating
from edgevit.stages.quantize import quantize
from edgevit.stages.results import BuildResult
from edgevit.stages.rules import Rules
from edgevit.stages.student import student_model
from edgevit.targets import Target


def quantize_student(
    bundle: Bundle,
    images: DataSource | None,
    targets: Mapping[str, Target],
    run: Path,
    *,
    rules: Rules,
    progress: Progress = SILENT,
) -> BuildResult:
    """Add a variant for each of ``targets`` with the weights that ``run`` has trained for merged tokens.

    They merge as many tokens as the run did, and are compared with the bundle's own float32 model.

    Raises:
        InputError: if there are no images, or ``run`` is no such run of this model.
        All that ``quantize`` raises; the bundle is as it was then.

    """
    if images is None:
        again = f"{calibrating(bundle, 'int8')} --student {quoted(run)}"
        raise InputError("merging tokens needs calibration images", remedy=again)
    with scratch_folder() as scratch:
        student = student_model(run, bundle, scratch, progress=progress)
        merging = TokenMerging(
            budget=student.budget,
            share=min(1.0, share_left(student.path, student.schedule)),
            schedule=student.schedule,
            student_sha256=sha256_of(student.path),
        )
        return quantize(bundle, images, targets, rules=rules, merging=merging, student=student.path, progress=progress)
