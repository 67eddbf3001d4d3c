"""What is shown of each limit of a gate, by what was measured of a variant."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit import statistics
from edgevit.bundle.manifest import Accuracy, Latency, LimitEvidence, Manifest, Precision, Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import InputError
from edgevit.evaluation.accuracy import known_labels
from edgevit.evaluation.decision_evidence import decisions_evidence
from edgevit.evaluation.evidence import (
    SURE_MARGIN,
    Evidence,
    drop_evidence,
    energy_evidence,
    figure_evidence,
    flips_evidence,
    mean_of,
    speed_evidence,
)
from edgevit.evaluation.gate import MAX_DROP, MIN_COSINE, check_limits
from edgevit.evaluation.output_limits import OutputLimits
from edgevit.models.outputs import Output
from edgevit.numerals import exactly
from edgevit.recipes import GateLimits
from edgevit.report.verdict import float_layers_reason
from edgevit.stages.race_result import Entrant, Flip, word_of
from edgevit.stages.validate import Measurement
from edgevit.statistics import Logits

#: Smallest speed-up over float32 that passes, unless the user says otherwise; 0 is no limit.
MIN_SPEEDUP = 1.0

_REFERENCE: Precision = "float32"
_MOST_FLIPS = 100
#: The least SQNR of another engine's float32, whose rounding alone leaves over 100 dB. With less it counts as another
#: precision, and must show that it keeps the limits.
_SAME_DB = 60.0


def output_limits(limits: GateLimits) -> OutputLimits:
    """Return those of ``limits`` that outputs of all kinds are judged by."""
    return OutputLimits(
        max_drop=limits.max_drop,
        min_cosine=limits.min_cosine,
        min_miou=limits.min_miou,
        min_delta1=limits.min_delta1,
        min_box_agreement=limits.min_box_agreement,
        max_abs_rel=limits.max_abs_rel,
    )


def check_gate(limits: GateLimits, *, classes: int, typed: tuple[Output, ...]) -> None:
    """Check that each limit means something for a model of ``classes``, or with ``typed`` outputs.

    Raises:
        InputError: if one does not.
    """
    check_limits(classes=classes, max_drop=limits.max_drop, min_cosine=limits.min_cosine, dense=bool(typed))
    output_limits(limits).check(typed)
    if limits.max_kl is not None and (typed or not classes):
        raise InputError(
            "--max-kl is for classifiers, and this model gives other outputs than logits",
            remedy="leave it out; edgevit validate says which limit there is",
        )


def judge(
    bundle: Bundle, measured: Measurement, limits: GateLimits, *, seconds: float, strict: bool
) -> tuple[Bundle, tuple[Entrant, ...]]:
    """Return what is shown of all variants that were measured, the fastest first, and note it in the bundle.

    ``seconds`` is how long each was timed. If it is ``strict``, the accuracy of what is not shown to pass counts as
    failed from now on, as ``load`` sees it; else the verdict stays that on the figures as they are.
    """
    entrants = []
    for name in measured.names:
        variant = bundle.variant(name)
        accuracy = measured.accuracy(name, bundle.manifest, output_limits(limits))
        shown = _of_accuracy(measured, variant, accuracy, limits, bundle.manifest)
        if strict:
            accuracy = msgspec.structs.replace(accuracy, passed=word_of(shown) == "passed", reason=_said(shown))
        evidence = (*shown, *_of_costs(variant, limits, seconds=seconds))
        latency = variant.latency
        entrant = Entrant(
            name=name,
            precision=variant.precision,
            p50_ms=None if latency is None or not latency.valid else latency.p50_ms,
            evidence=evidence,
            flips=_flips(measured, name, bundle.manifest),
        )
        entrants.append(entrant)
        bundle = bundle.update_variant(name, accuracy=accuracy, evidence=evidence)
    return bundle, tuple(sorted(entrants, key=lambda each: (each.p50_ms is None, each.p50_ms or 0.0)))


def _said(evidence: list[LimitEvidence]) -> str:
    """Say in a line what is shown of the accuracy, as a verdict that was not reached by a race is said."""
    word = word_of(evidence)
    said = "; ".join(each.reason for each in evidence if each.word == word)
    return said if word == "passed" else f"{word}: {said}"


def _of_accuracy(
    measured: Measurement, variant: Variant, accuracy: Accuracy, limits: GateLimits, manifest: Manifest
) -> list[LimitEvidence]:
    """Return what is shown of the ``accuracy`` of a variant that was measured, one entry for each limit on it."""
    name = variant.name
    if (wrong := measured.wrong(name)) is not None:
        return [_limit("accuracy", Evidence("failed", wrong))]
    finite = manifest.typed_outputs or np.isfinite(measured.logits[name]).all()
    if (name == measured.reference and finite) or (variant.precision == _REFERENCE and _same(accuracy)):
        return [_limit("accuracy", _known(passed=True, reason="it is float32"))]
    if manifest.typed_outputs:
        outputs = measured.compared[name].evidence(output_limits(limits))
        return [_limit(f"accuracy of {each}", one) for each, shown in outputs.items() for one in shown]
    reference, logits = measured.logits[measured.reference], measured.logits[name]
    if not np.isfinite(logits).all():
        return [_limit("accuracy", Evidence("failed", "some outputs are not finite numbers"))]
    if not np.isfinite(reference).all():
        return [_limit("accuracy", Evidence("not shown", "some outputs of float32 itself are not finite numbers"))]
    if not manifest.classes:
        least = MIN_COSINE if limits.min_cosine is None else limits.min_cosine
        cosines = mean_of(statistics.cosines(reference, logits))
        return [_limit("accuracy", figure_evidence(cosines, "mean cosine with float32", least=least))]
    max_drop, kl = MAX_DROP if limits.max_drop is None else limits.max_drop, []
    if limits.max_kl is not None:
        divergences = mean_of(statistics.kl_divergences(reference, logits, independent=manifest.independent))
        kl = [_limit("kl", figure_evidence(divergences, "mean KL from float32", most=limits.max_kl))]
        if limits.max_drop is None:
            return kl
    if manifest.independent:
        shown = decisions_evidence(reference, logits, measured.labels, max_drop)
    else:
        shown = [_of_classes(measured, reference, logits, max_drop)]
    return [_limit("accuracy", each) for each in shown] + kl


def _same(accuracy: Accuracy) -> bool:
    """Return whether another engine's float32 answers as float32 does."""
    return accuracy.passed and (accuracy.sqnr_db is None or accuracy.sqnr_db >= _SAME_DB)


def _of_classes(measured: Measurement, reference: Logits, logits: Logits, max_drop: float) -> Evidence:
    labels = known_labels(measured.labels)
    if labels is None:
        flipped, sure = reference.argmax(axis=1) != logits.argmax(axis=1), _margins(reference) >= SURE_MARGIN
        return flips_evidence(int((flipped & sure).sum()), int(sure.sum()), len(logits), max_drop)
    before, after = (statistics.top_k_hits(each, labels, 1) for each in (reference, logits))
    right, most = before.mean(), statistics.wilson_interval(int(before.sum()), len(before))[1]
    if right == 0 or most < 1 / reference.shape[1]:  # who guesses is right more often: a variant has nothing to lose
        said = f"float32 itself is right on {100 * right:.2f} % of these images, which shows nothing of a loss"
        return Evidence("not shown", f"{said}: check that the labels and the images are the model's")
    return drop_evidence(int((before & ~after).sum()), int((after & ~before).sum()), len(logits), max_drop)


def _flips(measured: Measurement, name: str, manifest: Manifest) -> tuple[Flip, ...]:
    """Return the first images that float32 is sure of and the variant answers otherwise; none but of a classifier."""
    if manifest.typed_outputs or manifest.independent or not manifest.classes:
        return ()
    reference, logits = measured.logits[measured.reference], measured.logits[name]
    flipped = (reference.argmax(axis=1) != logits.argmax(axis=1)) & (_margins(reference) >= SURE_MARGIN)
    names = manifest.outcomes or tuple(map(str, range(manifest.classes)))
    return tuple(
        Flip(
            image=measured.describe(place),
            float32=names[int(reference[place].argmax())],
            variant=names[int(logits[place].argmax())],
            label=None if measured.labels is None else names[int(measured.labels[place])],
        )
        for place in np.flatnonzero(flipped)[:_MOST_FLIPS].tolist()
    )


def _margins(logits: Logits) -> NDArray[np.float64]:
    """Return, for each image, how far float32's two largest probabilities (N, classes) are apart."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    two = np.partition(raised / raised.sum(axis=1, keepdims=True), -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])


def _of_costs(variant: Variant, limits: GateLimits, *, seconds: float) -> list[LimitEvidence]:
    """Return what is shown of each cost that there is a limit on, by so many ``seconds`` of timing.

    What is not float32 is to be no slower than that, unless a limit says otherwise.

    That it was not timed, or not validly, is evidence too: nothing is shown of its speed then.
    """
    latency, found = variant.latency, []
    if latency is None or latency.p50_ms is None or not latency.valid:
        reason = "it was not timed" if latency is None else latency.invalid_reason or "it was not timed"
        found.append(LimitEvidence(limit="speed", word="not shown", reason=f"its time: {reason}"))
    else:
        found += _of_latency(variant, latency, limits, seconds)
    if (slow := float_layers_reason(variant)) is not None:
        found.append(_limit("kernels", Evidence("failed", slow)))
    if limits.max_memory_mb is not None:  # which other programs do not disturb
        memory = None if latency is None else latency.rss_mb
        found.append(_limit("memory", _at_most(memory, limits.max_memory_mb, "MB of memory")))
    if limits.max_size_mb is not None:
        found.append(_limit("size", _at_most(variant.bytes / 1e6, limits.max_size_mb, "MB of files")))
    return found


def _of_latency(variant: Variant, latency: Latency, limits: GateLimits, seconds: float) -> list[LimitEvidence]:
    found = []
    least = MIN_SPEEDUP if limits.min_speedup is None else limits.min_speedup
    if least and variant.precision != _REFERENCE:
        if latency.speedup_vs_float32 is None or latency.speedup_ci95 is None:
            found.append(LimitEvidence(limit="speed", word="not shown", reason="there is no float32 to compare with"))
        else:
            shown = speed_evidence(latency.speedup_vs_float32, latency.speedup_ci95, least, seconds)
            found.append(_limit("speed", shown))
    if limits.max_p99_ms is not None:
        found.append(_limit("p99", _at_most(latency.p99_ms, limits.max_p99_ms, "ms at the 99th percentile")))
    if limits.max_energy_mj is not None:
        found.append(_limit("energy", _of_energy(latency, limits.max_energy_mj, seconds)))
    return found


def _of_energy(latency: Latency, most: float, seconds: float) -> Evidence:
    if latency.energy is None:
        reason = latency.energy_reason or "nothing here measures it"
        return Evidence("not shown", f"energy could not be measured ({reason}); {exactly(most)} mJ allowed")
    return energy_evidence(latency.energy.mj, latency.energy.mj_ci95, most, seconds)


def _at_most(value: float | None, most: float, unit: str) -> Evidence:
    if value is None:
        return Evidence("not shown", f"{unit} could not be measured here; {exactly(most)} allowed")
    return _known(passed=value <= most, reason=f"{value:.4g} {unit}, {exactly(most)} allowed")


def _known(*, passed: bool, reason: str) -> Evidence:
    return Evidence("passed" if passed else "failed", reason)


def _limit(limit: str, shown: Evidence) -> LimitEvidence:
    return LimitEvidence(limit=limit, word=shown.word, reason=shown.reason, needed=shown.needed)
