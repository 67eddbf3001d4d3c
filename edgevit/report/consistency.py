"""Withholds a speed-up that contradicts the times beside it, and says why."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from edgevit.bundle.manifest import Latency, Manifest, Variant
from edgevit.evaluation.candidates import baseline_of

#: How far the ratio of two medians may lie outside of the speed-up's interval: they are taken over other sets of times.
_SLACK = 0.10


def consistent(manifest: Manifest) -> Manifest:
    """Return ``manifest`` without speed-ups that the times beside them contradict; those times are in doubt, too."""
    return replace(manifest, variants=tuple(_consistent(variant, manifest.variants) for variant in manifest.variants))


def _consistent(variant: Variant, variants: Sequence[Variant]) -> Variant:
    baseline = baseline_of(variant, variants)
    if variant.latency is None or baseline is None or baseline.latency is None or baseline.name == variant.name:
        return variant
    reason = _withheld_reason(variant.latency, baseline.latency, baseline.name)
    if reason is None:
        return variant
    reasons = "; ".join(filter(None, (reason, variant.latency.invalid_reason)))
    changed = replace(variant.latency, valid=False, invalid_reason=reasons, speedup_vs_float32=None, speedup_ci95=None)
    return replace(variant, latency=changed)


def _withheld_reason(latency: Latency, baseline: Latency, name: str) -> str | None:
    """Return why the speed-up is withheld, or None."""
    speedup, interval = latency.speedup_vs_float32, latency.speedup_ci95
    if speedup is None or interval is None or latency.p50_ms is None:
        return None
    if (latency.batch, latency.threads) != (baseline.batch, baseline.threads):
        return (
            f"its speed-up is withheld: it was timed with {_load(latency)}, {name} with {_load(baseline)}; "
            "run edgevit benchmark for both"
        )
    if baseline.p50_ms is None:
        return None
    ratio = baseline.p50_ms / latency.p50_ms
    low, high = interval
    if low * (1 - _SLACK) <= ratio <= high * (1 + _SLACK):
        return None
    return (
        f"its speed-up is withheld: blocks side by side gave {speedup:.2f}, the medians of {name} and of this one "
        f"{ratio:.2f}; run edgevit benchmark again, with a longer --duration"
    )


def _load(latency: Latency) -> str:
    images = f"{latency.batch} image{'s' * (latency.batch > 1)}"
    return f"{images} on {latency.threads} thread{'s' * (latency.threads > 1)}"
