"""``edgevit pipeline``: all stages in a row, from a checkpoint to a verdict and a report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgevit.bundle.manifest import Precision
from edgevit.bundle.store import Bundle, Existing
from edgevit.bundle.transaction import is_bundle, rebuilding
from edgevit.data.batches import Unreadable
from edgevit.errors import EdgeViTError, InputError
from edgevit.evaluation.gate import check_integer_share
from edgevit.evaluation.load import Load
from edgevit.graph.interface import WantedOutput
from edgevit.graph.metadata_overrides import MetadataOverrides
from edgevit.models.requested import Requests
from edgevit.models.spec import OutputActivation
from edgevit.progress import SILENT, Progress
from edgevit.recipes import NO_GATE, GateLimits, Recipe
from edgevit.stages.benchmark import benchmark
from edgevit.stages.budgets import TokenBudget
from edgevit.stages.export import CHECKED, classes_of, declared_outputs, export
from edgevit.stages.gate_limits import check_gate, judge, output_limits
from edgevit.stages.images import DataSource, LabelledBatches, shared_images
from edgevit.stages.precisions import NEED_IMAGES
from edgevit.stages.quantize import check_unique_variants, quantize
from edgevit.stages.race_result import Entrant
from edgevit.stages.report import report
from edgevit.stages.results import shares_missed
from edgevit.stages.rules import Rules
from edgevit.stages.source import load_source
from edgevit.stages.try_budget import MERGED, try_budget
from edgevit.stages.validate import measure_variants
from edgevit.targets import Target

if TYPE_CHECKING:
    from edgevit.stages.export import Exportable


@dataclass(frozen=True, slots=True)
class PipelineJob:
    """What to take through the pipeline, and how; the limits of ``gate`` go before the recipe's own.

    ``precisions`` are those to make beside float32; INT8 is made with tokens merged by each of ``token_budgets``, too.
    ``calibration_data`` is where the calibration images come from, if not the training part of ``data``. With
    ``image_size`` (height, width) the model is taken to another resolution than the checkpoint's, with ``l2_normalize``
    an embedding model's features to length 1, with ``raw_weights`` those of the last step where it has averaged ones.
    ``activation`` makes probabilities of its logits, whatever its config says. ``outputs`` are what it is to give in
    place of logits or features, ``onnx_outputs`` those of an ONNX file to use. ``min_integer_share`` of the
    multiply-adds, in 0..1, must run in integers; None stands for the recipe's.
    """

    source: str
    data: str
    output: Path
    targets: Mapping[str, Target]
    recipe: Recipe
    load: Load
    unreadable: Unreadable
    gate: GateLimits = NO_GATE
    min_integer_share: float | None = None
    precisions: tuple[Precision, ...] = ("int8",)
    token_budgets: tuple[TokenBudget, ...] = ()
    calibration_data: str | None = None
    root: Path | None = None
    image_size: tuple[int, int] | None = None
    heads: int | None = None
    activation: OutputActivation | None = None
    l2_normalize: bool = False
    raw_weights: bool = False
    outputs: Requests = ()
    onnx_outputs: tuple[WantedOutput, ...] = ()
    existing: Existing = "refuse"


class PipelineResult(NamedTuple):
    """The bundle with everything that was measured, and ``entrants``: what is shown of each variant, fastest first.

    ``failed`` are the variants that could not be made, ``shares_missed`` those with too few of their multiply-adds in
    integers, each with the reason.
    """

    bundle: Bundle
    failed: Mapping[str, EdgeViTError]
    shares_missed: Mapping[str, str]
    entrants: tuple[Entrant, ...]


def pipeline(job: PipelineJob, *, progress: Progress = SILENT) -> PipelineResult:
    """Export, quantize, validate, benchmark, judge and report.

    A new bundle grows stage by stage at ``job.output``. One that is there already is replaced by the whole new one once
    the last stage is through, whether the gate lets its variants pass or not.

    Raises:
        EdgeViTError: as the stages do; what the stages before made is kept, unless a bundle was to be replaced: then
            that one is as it was.
    """
    test = DataSource(job.data, "test", job.unreadable, root=job.root).checked()
    calibration = replace(
        test,
        name=job.calibration_data or job.data,
        split="train",
        samples=job.recipe.samples,
        seed=job.recipe.seed,
    ).checked()
    # What can be seen to be wrong is said before the work, and before a bundle that is there is replaced.
    Bundle.check_place(job.output, job.existing)
    job.load.check()
    check_integer_share(job.min_integer_share, job.precisions)
    for precision in job.precisions:
        check_unique_variants(job.targets, precision)
    if job.token_budgets and MERGED not in job.precisions:
        raise InputError(
            f"tokens are merged in {MERGED}, which is not among the precisions",
            remedy=f"leave --token-budget out, or give --precision {MERGED}, too",
        )
    progress.note(f"1/6 Export {job.source}")
    model = load_source(
        job.source,
        MetadataOverrides(image_size=job.image_size, activation=job.activation, outputs=job.onnx_outputs),
        l2_normalize=job.l2_normalize,
        heads=job.heads,
        raw_weights=job.raw_weights,
        requests=job.outputs,
    )
    for note in model.notes:
        progress.note(f"    {note}")
    classes, typed = classes_of(model), declared_outputs(model)
    limits = job.gate.or_else(job.recipe.gate)
    check_gate(limits, classes=classes, typed=typed)
    seen, tested = calibration.load(progress), test.load(progress)
    LabelledBatches.of(tested, model.labels, several=model.activation == "sigmoid" and classes > 1)
    if shared := shared_images(seen, tested):
        progress.note(f"    {shared}")
    with ExitStack() as stack:
        replaced = job.existing == "replace" and is_bundle(job.output)
        output = stack.enter_context(rebuilding(job.output)) if replaced else job.output
        failed, entrants = _stages(job, limits, model, output, test, calibration, progress)
    made = Bundle.open(job.output)
    share = job.recipe.min_integer_share if job.min_integer_share is None else job.min_integer_share
    return PipelineResult(made, failed, shares_missed(made.manifest.variants, share, failed), entrants)


def _stages(
    job: PipelineJob,
    limits: GateLimits,
    model: Exportable,
    output: Path,
    test: DataSource,
    calibration: DataSource,
    progress: Progress,
) -> tuple[Mapping[str, EdgeViTError], tuple[Entrant, ...]]:
    """Export ``model`` to ``output``, and take it through the other stages there.

    Return what could not be made, and what is shown of all else.
    """
    failed: dict[str, EdgeViTError] = {}
    checked = replace(test, samples=CHECKED)
    bundle = export(model, output, checked, existing=job.existing, progress=progress)
    progress.note(f"2/6 Quantize for {', '.join(job.targets)}")
    for precision in job.precisions:
        images = calibration if precision in NEED_IMAGES else None
        made = quantize(
            bundle,
            images,
            job.targets,
            precision,
            rules=Rules.of(job.recipe, precision, classes=classes_of(model), typed=declared_outputs(model)),
            progress=progress,
        )
        bundle = made.bundle
        failed |= made.failed
    for budget in job.token_budgets:
        bundle, not_made = try_budget(
            bundle, calibration, job.targets, budget, recipe=job.recipe, limits=limits, progress=progress
        )
        failed |= not_made
    # What does not pay by "auto" is there where its budget was asked for, too.
    made_names = {variant.name for variant in bundle.manifest.variants}
    failed = {name: error for name, error in failed.items() if name not in made_names}
    progress.note(f"3/6 Validate on {job.data}")
    measured = measure_variants(bundle, test, progress=progress)
    bundle = measured.noted(bundle, output_limits(limits), progress=progress)
    progress.note("4/6 Benchmark on this machine")
    # What replaces a bundle is gone with all that was measured of it, if it is interrupted.
    bundle, _ = benchmark(bundle, job.load, keep_partial=output == job.output, progress=progress)
    progress.note("5/6 Race: what is shown of each variant")
    bundle, entrants = judge(bundle, measured, limits, seconds=job.load.duration_s, strict=False)
    progress.note("6/6 Report")
    report(bundle)
    return failed, entrants
