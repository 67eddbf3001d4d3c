"""Which variant of a bundle to load when the user names none."""

from __future__ import annotations

from collections.abc import Collection

from edgevit.backends import how_to_get
from edgevit.bundle.manifest import Manifest, Variant
from edgevit.errors import MissingDependencyError


def select_variant(manifest: Manifest, backends: Collection[str], elsewhere: Collection[str] = ()) -> Variant:
    """Return the variant that serves best on a machine that has these ``backends``; ``elsewhere`` are for others.

    That is the fastest of those that were validly measured and passed the gate on accuracy; if none was measured, an
    INT8 one, then float32, then any other. One that failed the gate is never chosen.

    Raises:
        MissingDependencyError: if no variant can run here.

    """
    usable = [
        variant
        for variant in manifest.variants
        if variant.backend in backends and variant.name not in elsewhere and not _failed(variant)
    ]
    if not usable:
        needed = sorted({variant.backend for variant in manifest.variants if not _failed(variant)})
        raise MissingDependencyError(
            f"no variant of this bundle runs with what is installed here; they need {' or '.join(needed) or 'nothing'}",
            remedy=how_to_get(needed[0]) if needed else "add a variant with 'edgevit quantize'",
        )
    return min(usable, key=_rank)


def _failed(variant: Variant) -> bool:
    return variant.precision != "float32" and variant.accuracy is not None and not variant.accuracy.passed


def _rank(variant: Variant) -> tuple[int, float]:
    """Return what sorts the best variant first; of equals, ``min`` takes the first in the manifest."""
    milliseconds = _milliseconds_per_image(variant)
    if milliseconds is not None and (variant.accuracy is not None or variant.precision == "float32"):
        return 0, milliseconds
    return {"int8": 1, "float32": 2}.get(variant.precision, 3), 0.0


def _milliseconds_per_image(variant: Variant) -> float | None:
    latency = variant.latency
    if latency is None or not latency.valid or latency.p50_ms is None or latency.batch < 1:
        return None
    return latency.p50_ms / latency.batch
