"""What ``quantize`` and ``build`` print."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from edgevit.bundle.manifest import INTEGER_PRECISIONS
from edgevit.cli.console import Result
from edgevit.cli.tables import variants_table, with_unreadable
from edgevit.data.batches import Unreadable
from edgevit.stages.quantize import BuildResult

#: Nodes that are named one by one; a model has hundreds.
_LISTED = 5


def built(result: BuildResult, unreadable: Unreadable, following: str) -> Result:
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
    summary = f"{result.seconds:.1f} s, {result.peak_rss_mb:.0f} MiB at the most"
    table = variants_table(bundle, result.names, ("variant", "size"))
    return Result(
        data={
            "variants": [
                {
                    "name": variant.name,
                    "path": bundle.path / variant.files[0].path,
                    "bytes": variant.bytes,
                    "kernels": variant.kernels,
                }
                for variant in variants
            ],
            "float32_nodes": result.float32_nodes,
            "seconds": result.seconds,
            "peak_rss_mb": result.peak_rss_mb,
            "unreadable": sorted(unreadable.images),
        },
        text=with_unreadable(Group(table, *(Text(line) for line in (*lines, summary, "", following))), unreadable),
    )
