"""The verdict on a variant in a few words, from all its measurements."""

from __future__ import annotations

from typing import Literal, NamedTuple

from edgevit.bundle.manifest import INTEGER_PRECISIONS, Latency, LimitOutcome, Variant

Tone = Literal["good", "bad", "doubt", "neutral"]


class GateOutcome(NamedTuple):
    """A word or two, how to take them, and why."""

    word: str
    tone: Tone
    detail: str


def outcome(variant: Variant) -> GateOutcome:
    """Say what came of a variant: wrong beats slow, slow beats doubtful, and only what was measured counts."""
    accuracy, latency = variant.accuracy, variant.latency
    tone: Tone
    if (raced := _raced(variant)) is not None:
        return raced
    if accuracy is not None and not accuracy.passed:
        word, tone = ("partial", "doubt") if accuracy.partial else ("failed", "bad")
        return GateOutcome(word, tone, accuracy.reason)
    if (slow := float_layers_reason(variant)) is not None:
        return GateOutcome("failed", "bad", slow)
    if accuracy is None and variant.limit is not None and not variant.limit.passed:
        return GateOutcome("limit missed", "bad", variant.limit.reason)
    if accuracy is None:
        return GateOutcome("not validated", "neutral", "its accuracy has not been measured")
    kept = "accurate" if accuracy.decisions is None else "decisions kept"
    if latency is None:
        return GateOutcome(f"{kept}, not timed", "neutral", accuracy.reason)
    if latency.p50_ms is None:
        return GateOutcome("did not run", "bad", latency.invalid_reason or "")
    if not latency.valid:
        return GateOutcome(f"{kept}, speed in doubt", "doubt", latency.invalid_reason or "")
    if variant.precision == "float32":
        return GateOutcome("reference", "neutral", "what the others are compared with")
    return _speed(latency, kept, accuracy.reason)


def _raced(variant: Variant) -> GateOutcome | None:
    """Return what a race has shown against a variant, or could not show for it; None if nothing."""
    tones: dict[LimitOutcome, Tone] = {"failed": "bad", "not shown": "doubt"}
    for word, tone in tones.items():
        if reasons := [f"{each.limit}: {each.reason}" for each in variant.evidence if each.word == word]:
            return GateOutcome(word, tone, "; ".join(reasons))
    return None


def float_layers_reason(variant: Variant) -> str | None:
    """Say how many layers of an integer variant run in float that are not meant to; None if none does."""
    kernels = variant.kernels
    if variant.precision not in INTEGER_PRECISIONS or kernels is None:
        return None
    missing = len(set(kernels.float_linears) - {each.layer for each in variant.fallback})
    return f"{missing} of {kernels.linears} Linear layers run in float" if missing else None


def _speed(latency: Latency, kept: str, reason: str) -> GateOutcome:
    low, high = latency.speedup_ci95 or (0.0, float("inf"))
    if high < 1:
        return GateOutcome(f"{kept}, but slower", "bad", "slower than float32 on this machine")
    if low <= 1:
        return GateOutcome(f"{kept}, not faster", "doubt", "no faster than float32 within the interval")
    return GateOutcome("passed", "good", reason)
