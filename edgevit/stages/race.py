"""``edgevit race``: every precision that a target takes, judged by what is shown of it, and the fastest that passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgevit import backends
from edgevit.bundle.manifest import Precision, Variant
from edgevit.bundle.reading import MANIFEST
from edgevit.bundle.store import Bundle
from edgevit.errors import EdgeViTError, InputError, MissingDependencyError
from edgevit.evaluation.candidates import baseline_of
from edgevit.evaluation.load import Load
from edgevit.files import check_writable, shareable
from edgevit.progress import SILENT, Progress
from edgevit.recipes import GateLimits, Recipe
from edgevit.shell import quoted
from edgevit.stages.benchmark import benchmark
from edgevit.stages.budgets import TokenBudget
from edgevit.stages.build import variant_name
from edgevit.stages.gate_limits import check_gate, judge, output_limits
from edgevit.stages.images import DataSource, LabelledBatches, several_labels
from edgevit.stages.precisions import NEED_IMAGES
from edgevit.stages.quantize import quantize
from edgevit.stages.race_result import RaceResult, winner_of
from edgevit.stages.rules import Rules
from edgevit.stages.try_budget import MERGED, NOT_OF_A_VARIANT, try_budget
from edgevit.stages.validate import measure_variants
from edgevit.targets import Target

_REFERENCE: Precision = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What is raced: ``name`` and profile of the target, the images, how to calibrate, the load, the limits.

    INT8 is raced with tokens merged by each of ``token_budgets``, too.
    """

    name: str
    target: Target
    images: DataSource
    calibration: DataSource
    recipe: Recipe
    load: Load
    limits: GateLimits
    precisions: tuple[Precision, ...] = ()
    token_budgets: tuple[TokenBudget, ...] = ()

    def is_for(self, variant: Variant) -> bool:
        """Return whether ``variant`` was made for the target, whose file is noted by its name alone."""
        return variant.target in (self.name, shareable(self.name))


def race(bundle: Bundle, job: Race, *, progress: Progress = SILENT) -> RaceResult:
    """Make what is missing of the target's precisions, measure all, and note in the bundle who passed.

    ``edgevit.load`` takes the winner afterwards: what failed, or is not shown to pass, counts as failed there.

    Raises:
        InputError: if a limit means nothing for the model, the target does not take a precision that is named, or none
            could be made.
        DataError: if the images cannot be used.
        BundleError: if files are damaged.
        MissingDependencyError: if the target's engine does not run here.
        StorageError: if the bundle cannot be written.
    """
    manifest = bundle.manifest
    check_gate(job.limits, classes=manifest.classes, typed=manifest.typed_outputs)
    unknown = [each for each in job.precisions if each not in (_REFERENCE, *job.target.precisions)]
    if unknown:
        raise InputError(
            f"{job.name} does not take {', '.join(unknown)}", remedy=f"it takes: {', '.join(job.target.precisions)}"
        )
    job.load.check()
    place = bundle.path / MANIFEST
    check_writable(place, remedy="copy the bundle to where you may write, and race the copy: it notes the verdicts")
    # Before minutes go into what could not be timed, or on images whose labels are not the model's:
    with _on_this_machine(job):
        backends.get_backend(job.target.backend)
    LabelledBatches.of(job.images.load(progress), manifest.outcomes, several=several_labels(manifest))
    _refuse_to_replace(bundle, job)
    bundle, left_out = _made(bundle, job, progress)
    racing = [each for each in bundle.manifest.variants if _races(each, job)]
    compared = {each.name for each in (baseline_of(one, bundle.manifest.variants) for one in racing) if each}
    names = [each.name for each in bundle.manifest.variants if each in racing or each.name in compared]
    if not names:
        reasons = "; ".join(f"{precision}: {reason}" for precision, reason in left_out.items())
        raise InputError(
            f"there is nothing to race for {job.name}{': ' * bool(reasons)}{reasons}",
            remedy="race on the device, or name another target with --target, or other precisions with --precision",
        )
    with _on_this_machine(job):
        measured = measure_variants(bundle, job.images, variants=names, progress=progress)
    bundle = measured.noted(bundle, output_limits(job.limits), progress=progress)
    bundle, _ = benchmark(bundle, job.load, variants=measured.names, progress=progress)
    bundle, entrants = judge(bundle, measured, job.limits, seconds=job.load.duration_s, strict=True)
    return RaceResult(
        bundle=bundle,
        target=job.name,
        data=measured.data,
        images=measured.images,
        entrants=entrants,
        winner=winner_of(entrants),
        left_out=left_out,
    )


@contextmanager
def _on_this_machine(job: Race) -> Iterator[None]:
    """Say what to do about an engine or a device that is not here."""
    try:
        yield
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"nothing for {job.name} can be raced on this machine: {error.message}",
            remedy="race on the device, or for an engine that is here with --target; edgevit doctor says which is",
        ) from error


def _races(variant: Variant, job: Race) -> bool:
    wanted = job.precisions or (_REFERENCE, *job.target.precisions)
    return job.is_for(variant) and variant.precision in {_REFERENCE, *wanted}


def _refuse_to_replace(bundle: Bundle, job: Race) -> None:
    """Check that no variant of another target has the name of one that would be made.

    Raises:
        InputError: if one has.
    """
    names = {variant_name(job.target, each): each for each in job.precisions or job.target.precisions}
    names |= {variant_name(job.target, MERGED, each): MERGED for each in job.token_budgets if each != "auto"}
    for variant in bundle.manifest.variants:
        if variant.name in names and variant.precision != _REFERENCE and not job.is_for(variant):
            place, target = (quoted(each) for each in (bundle.path, job.name))
            raise InputError(
                f"{variant.name} is there for {variant.target}, and one for {job.name} would take its place",
                remedy="race with another bundle of the model; or give that one up: edgevit quantize "
                f"{place} --target {target} --precision {names[variant.name]} --data IMAGES",
            )


def _made(bundle: Bundle, job: Race, progress: Progress) -> tuple[Bundle, dict[str, str]]:
    """Add the variants of the target that are missing; return the bundle, and what could not be made."""
    left_out: dict[str, str] = {}
    for precision in job.precisions or job.target.precisions:
        if _has(bundle, job, precision, None) or precision == _REFERENCE:
            continue
        manifest = bundle.manifest
        rules = Rules.of(job.recipe, precision, classes=manifest.classes, typed=manifest.typed_outputs)
        images = job.calibration if precision in NEED_IMAGES else None
        try:
            made = quantize(bundle, images, {job.name: job.target}, precision, rules=rules, progress=progress)
        except NOT_OF_A_VARIANT:
            raise
        except EdgeViTError as error:
            left_out[precision] = error.message
            progress.note(f"Leaving out {precision}: {error.message}")
            continue
        bundle = made.bundle
        left_out |= {name: error.message for name, error in made.failed.items()}
    for budget in job.token_budgets:
        if budget == "auto" or not _has(bundle, job, MERGED, budget):
            bundle, failed = try_budget(
                bundle,
                job.calibration,
                {job.name: job.target},
                budget,
                recipe=job.recipe,
                limits=job.limits,
                progress=progress,
            )
            left_out |= {name: error.message for name, error in failed.items()}
    # What does not pay by "auto" is there where its budget was asked for, too.
    names = {variant.name for variant in bundle.manifest.variants}
    return bundle, {name: reason for name, reason in left_out.items() if name not in names}


def _has(bundle: Bundle, job: Race, precision: Precision, budget: float | None) -> bool:
    """Say whether there is a variant for the target in ``precision``, with tokens merged by ``budget`` if it is one."""
    return any(
        job.is_for(each)
        and each.precision == precision
        and (None if each.token_merging is None else each.token_merging.budget) == budget
        for each in bundle.manifest.variants
    )
