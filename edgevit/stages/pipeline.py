"""``edgevit pipeline``: all stages in a row, from a checkpoint to a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgevit.bundle.manifest import Precision
from edgevit.bundle.store import Bundle, Existing
from edgevit.data.batches import Unreadable
from edgevit.models.loading import load_checkpoint
from edgevit.progress import SILENT, Progress
from edgevit.recipes import Recipe
from edgevit.stages.benchmark import Load, benchmark
from edgevit.stages.export import CHECKED, export
from edgevit.stages.images import ImageSource, LabelledBatches
from edgevit.stages.precisions import NEED_IMAGES
from edgevit.stages.quantize import quantize, refuse_rivals
from edgevit.stages.report import report
from edgevit.stages.validate import validate
from edgevit.targets import Target


@dataclass(frozen=True, slots=True)
class PipelineJob:
    """What to take through the pipeline, and how; ``max_drop`` in points of top-1, ``precisions`` beside float32.

    ``calibration_data`` is where the calibration images come from, if not the training part of ``data``. With
    ``image_size`` (height, width) the model is taken to another resolution than the checkpoint's.
    """

    source: str
    data: str
    output: Path
    targets: Mapping[str, Target]
    recipe: Recipe
    load: Load
    max_drop: float
    unreadable: Unreadable
    precisions: tuple[Precision, ...] = ("int8",)
    calibration_data: str | None = None
    root: Path | None = None
    image_size: tuple[int, int] | None = None
    existing: Existing = "refuse"


def pipeline(job: PipelineJob, *, progress: Progress = SILENT) -> Bundle:
    """Export, quantize, validate, benchmark and report; return the bundle with everything that was measured.

    Raises:
        EdgeViTError: as the stages do; what the stages before made is kept.
    """
    test = ImageSource(job.data, "test", job.unreadable, root=job.root)
    calibration = replace(
        test,
        name=job.calibration_data or job.data,
        split="train",
        samples=job.recipe.samples,
        seed=job.recipe.seed,
    )
    progress.note(f"1/5 Export {job.source}")
    checkpoint = load_checkpoint(job.source, job.image_size)
    for note in checkpoint.notes:
        progress.note(f"    {note}")
    # What can be seen to be wrong is said before the work, and before a bundle that is there is replaced.
    Bundle.check_place(job.output, job.existing)
    for precision in job.precisions:
        refuse_rivals(job.targets, precision)
    calibration.load(progress)
    LabelledBatches.of(test.load(progress), checkpoint.labels)
    checked = replace(test, samples=CHECKED)
    bundle = export(checkpoint, job.output, checked, existing=job.existing, progress=progress)
    progress.note(f"2/5 Quantize for {', '.join(job.targets)}")
    for precision in job.precisions:
        images = calibration if precision in NEED_IMAGES else None
        bundle = quantize(
            bundle,
            images,
            job.targets,
            precision,
            observer=job.recipe.observer,
            split=job.recipe.split,
            progress=progress,
        ).bundle
    progress.note(f"3/5 Validate on {job.data}")
    bundle, _ = validate(bundle, test, max_drop=job.max_drop, progress=progress)
    progress.note("4/5 Benchmark on this machine")
    bundle, _ = benchmark(bundle, job.load, progress=progress)
    progress.note("5/5 Report")
    return report(bundle)
