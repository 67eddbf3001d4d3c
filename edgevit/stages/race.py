"""``edgevit race``: every precision that a target takes, judged by what is shown of it, and the fastest that passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from edgevit import backends, statistics
from edgevit.bundle.manifest import Latency, LimitEvidence, Precision, Variant
from edgevit.bundle.reading import MANIFEST
from edgevit.bundle.store import Bundle
from edgevit.errors import (
    BundleError,
    DataError,
    EdgeViTError,
    InputError,
    MissingDataError,
    MissingDependencyError,
    StorageError,
)
from edgevit.evaluation.evidence import (
    SURE_MARGIN,
    Evidence,
    drop_evidence,
    flips_evidence,
    mean_evidence,
    speed_evidence,
)
from edgevit.evaluation.gate import MAX_DROP, MIN_COSINE, check_limits
from edgevit.evaluation.output_limits import OutputLimits
from edgevit.files import check_writable
from edgevit.numerals import exactly
from edgevit.progress import SILENT, Progress
from edgevit.recipes import GateLimits, Recipe
from edgevit.stages.accuracy_details import keep_details
from edgevit.stages.benchmark import Load, benchmark
from edgevit.stages.images import DataSource, LabelledBatches, several_labels
from edgevit.stages.precisions import NEED_IMAGES
from edgevit.stages.quantize import quantize
from edgevit.stages.race_result import Entrant, Flip, RaceResult
from edgevit.stages.rules import Rules
from edgevit.stages.validate import Measurement, measure
from edgevit.targets import Target

_REFERENCE: Precision = "float32"
_MOST_FLIPS = 100
#: What no precision can help: the user's images, the bundle, or the disk.
_NOT_OF_A_PRECISION = (BundleError, DataError, MissingDataError, StorageError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What is raced: ``name`` and profile of the target, the images, how to calibrate, the load, the limits."""

    name: str
    target: Target
    images: DataSource
    calibration: DataSource
    recipe: Recipe
    load: Load
    limits: GateLimits
    precisions: tuple[Precision, ...] = ()


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
    check_limits(
        classes=manifest.classes,
        max_drop=job.limits.max_drop,
        min_cosine=job.limits.min_cosine,
        dense=bool(manifest.typed_outputs),
    )
    # What means nothing for any of its outputs is refused, as in ``validate``:
    OutputLimits(max_drop=job.limits.max_drop, min_cosine=job.limits.min_cosine).check(manifest.typed_outputs)
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
    bundle, left_out = _made(bundle, job, progress)
    names = [each.name for each in bundle.manifest.variants if _races(each, job)]
    if not names:
        reasons = "; ".join(f"{precision}: {reason}" for precision, reason in left_out.items())
        raise InputError(
            f"there is nothing to race for {job.name}{': ' * bool(reasons)}{reasons}",
            remedy="race on the device, or name another target with --target, or other precisions with --precision",
        )
    with _on_this_machine(job):
        measured = measure(bundle, job.images, variants=names, progress=progress)
    images = 0
    judged = {name: _accuracy(measured, bundle, name, job.limits) for name in measured.names}
    for name, (evidence, _) in judged.items():
        accuracy = measured.accuracy(name, manifest, max_drop=job.limits.max_drop, min_cosine=job.limits.min_cosine)
        if evidence is not None:
            reason = evidence.reason if evidence.word == "passed" else f"{evidence.word}: {evidence.reason}"
            accuracy = msgspec.structs.replace(accuracy, passed=evidence.word == "passed", reason=reason)
        bundle, images = bundle.update_variant(name, accuracy=accuracy), accuracy.images
        if evidence is None:
            judged[name] = (_as_it_is(passed=accuracy.passed, reason=accuracy.reason), ())
    bundle = keep_details(bundle, measured)
    bundle, _ = benchmark(bundle, job.load, variants=measured.names, progress=progress)
    entrants = sorted(
        (_entrant(bundle.variant(name), *judged[name], job) for name in measured.names),
        key=lambda each: (each.p50_ms is None, each.p50_ms or 0.0),
    )
    for each in entrants:
        bundle = bundle.update_variant(each.name, evidence=each.evidence)
    timed = [each for each in entrants if each.word == "passed" and each.p50_ms is not None]
    return RaceResult(
        bundle=bundle,
        target=job.name,
        data=measured.data,
        images=images,
        entrants=tuple(entrants),
        winner=timed[0].name if timed else None,
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
    return variant.target == job.name and variant.precision in {_REFERENCE, *wanted}


def _made(bundle: Bundle, job: Race, progress: Progress) -> tuple[Bundle, dict[str, str]]:
    """Add the variants of the target that are missing; return the bundle, and what could not be made."""
    left_out: dict[str, str] = {}
    for precision in job.precisions or job.target.precisions:
        there = [each for each in bundle.manifest.variants if each.target == job.name and each.precision == precision]
        if there or precision == _REFERENCE:
            continue
        manifest = bundle.manifest
        rules = Rules.of(job.recipe, precision, classes=manifest.classes, typed=manifest.typed_outputs)
        images = job.calibration if precision in NEED_IMAGES else None
        try:
            made = quantize(bundle, images, {job.name: job.target}, precision, rules=rules, progress=progress)
        except _NOT_OF_A_PRECISION:
            raise
        except EdgeViTError as error:
            left_out[precision] = error.message
            progress.note(f"Leaving out {precision}: {error.message}")
            continue
        bundle = made.bundle
        left_out |= {name: error.message for name, error in made.failed.items()}
    return bundle, left_out


def _accuracy(
    measured: Measurement, bundle: Bundle, name: str, limits: GateLimits
) -> tuple[Evidence | None, tuple[Flip, ...]]:
    """Return what is shown of a variant's accuracy, and which images flip; None where the point verdict is taken."""
    manifest = bundle.manifest
    if (wrong := measured.wrong(name)) is not None:
        return Evidence("failed", wrong), ()
    if name == measured.reference or bundle.variant(name).precision == _REFERENCE:
        return _as_it_is(passed=True, reason="it is float32"), ()
    if manifest.typed_outputs or manifest.independent:
        return None, ()
    reference, logits = measured.logits[measured.reference], measured.logits[name]
    if not np.isfinite(logits).all():
        return Evidence("failed", "some outputs are not finite numbers"), ()
    if not manifest.classes:
        least = MIN_COSINE if limits.min_cosine is None else limits.min_cosine
        return mean_evidence(statistics.cosines(reference, logits), least, "cosine with float32"), ()
    max_drop = MAX_DROP if limits.max_drop is None else limits.max_drop
    flipped = reference.argmax(axis=1) != logits.argmax(axis=1)
    sure = _margins(reference) >= SURE_MARGIN
    names = manifest.outcomes or tuple(map(str, range(manifest.classes)))
    flips = tuple(
        Flip(
            image=measured.describe(place),
            float32=names[int(reference[place].argmax())],
            variant=names[int(logits[place].argmax())],
            label=None if measured.labels is None else names[int(measured.labels[place])],
        )
        for place in np.flatnonzero(flipped & sure)[:_MOST_FLIPS].tolist()
    )
    if measured.labels is None:
        return flips_evidence(int((flipped & sure).sum()), int(sure.sum()), len(logits), max_drop), flips
    before, after = (statistics.top_k_hits(each, measured.labels, 1) for each in (reference, logits))
    return drop_evidence(int((before & ~after).sum()), int((after & ~before).sum()), len(logits), max_drop), flips


def _margins(logits: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return, for each image, how far float32's two largest probabilities (N, classes) are apart."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    two = np.partition(raised / raised.sum(axis=1, keepdims=True), -2, axis=1)[:, -2:]
    found: np.ndarray[Any, np.dtype[np.float64]] = two[:, 1] - two[:, 0]
    return found


def _entrant(variant: Variant, accuracy: Evidence | None, flips: tuple[Flip, ...], job: Race) -> Entrant:
    assert accuracy is not None  # noqa: S101 - each has one by now
    latency = variant.latency
    evidence = [_limit("accuracy", accuracy)]
    if latency is None or latency.p50_ms is None or not latency.valid:
        reason = "it was not timed" if latency is None else latency.invalid_reason or "it was not timed"
        evidence.append(LimitEvidence(limit="speed", word="not shown", reason=f"its time: {reason}"))
    else:
        evidence += _of_latency(variant, latency, job)
    if job.limits.max_size_mb is not None:
        size = variant.bytes / 1e6
        evidence.append(_limit("size", _at_most(size, job.limits.max_size_mb, "MB of files")))
    return Entrant(
        name=variant.name,
        precision=variant.precision,
        p50_ms=None if latency is None or not latency.valid else latency.p50_ms,
        evidence=tuple(evidence),
        flips=flips,
    )


def _of_latency(variant: Variant, latency: Latency, job: Race) -> list[LimitEvidence]:
    limits, found = job.limits, []
    least = limits.min_speedup
    if least is not None and variant.precision != _REFERENCE:
        if latency.speedup_vs_float32 is None or latency.speedup_ci95 is None:
            found.append(LimitEvidence(limit="speed", word="not shown", reason="there is no float32 to compare with"))
        else:
            shown = speed_evidence(latency.speedup_vs_float32, latency.speedup_ci95, least, job.load.duration_s)
            found.append(_limit("speed", shown))
    if limits.max_p99_ms is not None:
        found.append(_limit("p99", _at_most(latency.p99_ms, limits.max_p99_ms, "ms at the 99th percentile")))
    if limits.max_memory_mb is not None:
        found.append(_limit("memory", _at_most(latency.rss_mb, limits.max_memory_mb, "MB of memory")))
    return found


def _at_most(value: float | None, most: float, unit: str) -> Evidence:
    if value is None:
        return Evidence("not shown", f"{unit} could not be measured here; {exactly(most)} allowed")
    return _as_it_is(passed=value <= most, reason=f"{value:.4g} {unit}, {exactly(most)} allowed")


def _as_it_is(*, passed: bool, reason: str) -> Evidence:
    return Evidence("passed" if passed else "failed", reason)


def _limit(limit: str, shown: Evidence) -> LimitEvidence:
    return LimitEvidence(limit=limit, word=shown.word, reason=shown.reason, needed=shown.needed)
