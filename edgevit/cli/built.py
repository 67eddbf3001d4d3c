"""What ``quantize`` and ``build`` print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group
from rich.text import Text

from edgevit.backends import available_backends
from edgevit.backends.variants import why_not_here
from edgevit.bundle.manifest import INTEGER_PRECISIONS, Variant
from edgevit.bundle.store import Bundle
from edgevit.cli.console import Result
from edgevit.cli.tables import variants_table, with_unreadable
from edgevit.data.batches import Unreadable
from edgevit.errors import EdgeViTError
from edgevit.report.table import float_layers
from edgevit.stages.quantize import BuildResult

#: Nodes that are named one by one; a model has hundreds.
_LISTED = 5


def following(bundle: Bundle, names: Sequence[str], command: str) -> str:
    """Say to type ``command`` next, or where else, if none of the variants ``names`` can be run here."""
    for name in names:
        variant = bundle.variant(name)
        if variant.backend in available_backends() and why_not_here(bundle, variant) is None:
            return f"next: {command}"
    return f"next: copy {bundle.path} to the device, since this machine cannot run it; there: {command}"


def built(result: BuildResult, unreadable: Unreadable, ending: str) -> Result:
    """Show new variants: what they are called, where they lie, how large they are, and how their layers run."""
    bundle = result.bundle
    variants = [bundle.variant(name) for name in result.names]
    lines = [
        f"{variant.name}: {variant.kernels.integer_linears} of {variant.kernels.linears} Linear layers in integers"
        for variant in variants
        if variant.kernels is not None and variant.precision in INTEGER_PRECISIONS
    ]
    lines += [f"{name} stays float32: {why}" for name, why in list(result.float32_nodes.items())[:_LISTED]]
    if len(result.float32_nodes) > _LISTED:
        lines.append(f"and {len(result.float32_nodes) - _LISTED} more nodes stay float32: see --json")
    kept = float_layers(variants)
    lines += kept[:_LISTED]
    if len(kept) > _LISTED:
        lines.append(f"and {len(kept) - _LISTED} more layers stay float: edgevit inspect {bundle.path}")
    lines += _limits(variants)
    lines += not_made(result.failed)
    summary = f"{result.seconds:.1f} s, {result.peak_rss_mb:.0f} MiB of memory at most"
    table = variants_table(bundle, result.names, ("variant", "size"))
    return Result(
        data={
            "variants": [
                {
                    "name": variant.name,
                    "path": bundle.path / variant.files[0].path,
                    "bytes": variant.bytes,
                    "kernels": variant.kernels,
                    "fallback": variant.fallback,
                    "limit": variant.limit,
                }
                for variant in variants
            ],
            "float32_nodes": result.float32_nodes,
            "sensitivity": [
                {"scheme": scheme, "layer": cost.layer, "kl": cost.kl, "sqnr_db": cost.sqnr_db}
                for scheme, costs in result.sensitivity.items()
                for cost in costs
            ],
            "seconds": result.seconds,
            "peak_rss_mb": result.peak_rss_mb,
            "unreadable": sorted(unreadable.images),
            "failed": failures(result.failed),
        },
        text=with_unreadable(Group(table, *(Text(line) for line in (*lines, summary, "", ending))), unreadable),
        exit_code=0 if not result.failed and all(map(_kept, variants)) else 1,
    )


def not_made(failed: Mapping[str, EdgeViTError]) -> list[str]:
    """Return lines on the variants that could not be made."""
    return [
        line
        for name, error in failed.items()
        for line in (f"{name} could not be made: {error.message}", f"    try: {error.remedy}")
    ]


def failures(failed: Mapping[str, EdgeViTError]) -> list[dict[str, str]]:
    """Return the same for ``--json``."""
    return [{"name": name, "error": error.message, "remedy": error.remedy} for name, error in failed.items()]


def _kept(variant: Variant) -> bool:
    return variant.limit is None or variant.limit.passed


def _limits(variants: Sequence[Variant]) -> Iterator[str]:
    """Say for each variant whether its limit was kept, and what to try if not."""
    for variant in variants:
        if variant.limit is not None:
            word = "within the limit" if variant.limit.passed else "limit missed"
            yield f"{variant.name}: {word}: {variant.limit.reason}"
    if any(variant.limit is not None and not variant.limit.passed for variant in variants):
        yield "    try: more calibration images (--samples), --recipe accurate, a larger limit, or --precision fp16"
