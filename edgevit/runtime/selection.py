"""Which variant of a bundle to load when the user names none."""

from __future__ import annotations

from collections.abc import Collection

from edgevit import processor
from edgevit.backends import BACKENDS, backend_class
from edgevit.bundle.manifest import COSTS, INTEGER_PRECISIONS, Manifest, Variant
from edgevit.errors import MissingDependencyError


def rank_variants(
    manifest: Manifest, backends: Collection[str], elsewhere: Collection[str] = (), features: Collection[str] = ()
) -> list[Variant]:
    """Return the variants that run on a machine with these ``backends``, the one that serves best first.

    That is the fastest of those that were validly measured and passed the gate on accuracy; if none was measured, an
    INT8 one that passed, then float32, then any other that passed. Behind these is what a race did not show to keep a
    limit on speed or another cost. What nobody validated comes last. One that failed the gate is never taken, nor is
    one of ``elsewhere``.

    ``features`` are the processor's (``processor.features_in``). Figures of a processor of this kind go before those of
    another kind, and what this one lacks (see ``unsuited_reason``) comes last; without features nothing is known of it.

    Raises:
        MissingDependencyError: if no variant can run here.

    """
    usable = [
        variant
        for variant in manifest.variants
        if variant.backend in backends and variant.name not in elsewhere and not failed(variant)
    ]
    if not usable:
        needed = sorted({variant.backend for variant in manifest.variants if not failed(variant)})
        raise MissingDependencyError(
            f"no variant of this bundle runs with what is installed here; they need {' or '.join(needed) or 'nothing'}",
            remedy=backend_class(needed[0]).how_to_install() if needed else "add a variant with 'edgevit quantize'",
        )
    own = [variant.name for variant in usable if _measured_on_this_kind(variant, features)]
    return sorted(
        usable,
        key=lambda variant: (
            not validated(variant),
            unsuited_reason(variant, features) is not None,
            *_rank(variant, believed=not own or variant.name in own),
        ),
    )


def validated(variant: Variant) -> bool:
    """Return whether it is known what ``variant`` loses: float32 loses nothing."""
    return variant.precision == "float32" or variant.accuracy is not None


def unsuited_reason(variant: Variant, features: Collection[str]) -> str | None:
    """Return what a processor with ``features`` lacks that ``variant`` counts on; None if nothing, or it is unknown."""
    if not features or not _on_processor(variant):
        return None
    if "bf16" in variant.settings.values() and processor.BF16.isdisjoint(features):
        return "it was measured with BF16, which this processor lacks"
    if (
        variant.precision in INTEGER_PRECISIONS
        and processor.INTEGER_DOT_PRODUCT.isdisjoint(features)
        and not _measured_on_this_kind(variant, features)
    ):
        return "this processor has no integer dot product, such as VNNI, and it was not measured on one without"
    return None


def _on_processor(variant: Variant) -> bool:
    if variant.backend not in BACKENDS:  # of a later EdgeViT
        return False
    return variant.settings.get("DEVICE", backend_class(variant.backend).devices[0]) == "CPU"


def _measured_on_this_kind(variant: Variant, features: Collection[str]) -> bool:
    if variant.latency is None:
        return False
    place = variant.latency.environment
    return processor.same_kind(place.machine, place.cpu_features, features)


def failed(variant: Variant) -> bool:
    """Return whether ``variant`` missed the gate on accuracy."""
    return variant.precision != "float32" and variant.accuracy is not None and not variant.accuracy.passed


def _rank(variant: Variant, *, believed: bool) -> tuple[bool, int, float]:
    """Return what sorts the best variant first; of equals, sorting keeps the first in the manifest first.

    Figures that are not ``believed`` count as none.
    """
    costs_too_much = believed and any(each.limit in COSTS and each.word != "passed" for each in variant.evidence)
    milliseconds = _milliseconds_per_image(variant) if believed else None
    if milliseconds is not None and validated(variant):
        return costs_too_much, 0, milliseconds
    return costs_too_much, {"int8": 1, "float32": 2}.get(variant.precision, 3), 0.0


def _milliseconds_per_image(variant: Variant) -> float | None:
    latency = variant.latency
    if latency is None or not latency.valid or latency.p50_ms is None or latency.batch < 1:
        return None
    return latency.p50_ms / latency.batch
