"""Tables of kernels, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgevit.backends.base import LinearKernel
from edgevit.backends.tensorrt.report import Kernel, KernelReport
from edgevit.stages.kernels import VariantKernels

_NODES_SHOWN = 3


def kernels_shown(variants: Sequence[VariantKernels]) -> RenderableType:
    """Return what is known of the kernels of ``variants``."""
    return Group(*(part for variant in variants for part in _parts(variant)))


def _parts(variant: VariantKernels) -> Iterator[RenderableType]:
    if variant.unknown is not None:
        yield Text(f"{variant.variant}: kernels not known: {variant.unknown}")
    elif variant.report is None:
        integers = sum(linear.integer for linear in variant.linears)
        yield Text(f"{variant.variant}: {integers} of {len(variant.linears)} Linear layers in integers")
        yield _linears(variant.linears)
    else:
        yield Text(f"{variant.variant}: {_sentence(variant.report)}")
        yield _kernels(variant.report.kernels)
        yield from (Text(f"warning: {line}") for line in variant.report.warnings)


def _sentence(report: KernelReport) -> str:
    counts = report.counts
    parts = [f"{count} products in {kind}" for kind, count in counts.gemms.items()]
    parts += [f"{count} fused attentions in {kind}" for kind, count in counts.fused_attentions.items()]
    return f"{counts.kernels} kernels: {', '.join((*parts, f'{counts.reformats} that only move or cast values'))}"


def _linears(linears: Sequence[LinearKernel]) -> Table:
    table = Table("layer", "kernel", "integers", "weight")
    for linear in linears:
        table.add_row(*map(Text, (linear.layer, linear.kernel, "yes" if linear.integer else "no", linear.weight)))
    return table


def _kernels(kernels: Sequence[Kernel]) -> Table:
    table = Table("#", "kernel", "kind", "types", "ONNX nodes")
    for number, kernel in enumerate(kernels, start=1):
        nodes = ", ".join(kernel.nodes[:_NODES_SHOWN])
        more = len(kernel.nodes) - _NODES_SHOWN
        types = f"{', '.join(dict.fromkeys(kernel.inputs))} -> {', '.join(dict.fromkeys(kernel.outputs))}"
        shown = (str(number), kernel.name, kernel.kind, types, f"{nodes} +{more}" if more > 0 else nodes)
        table.add_row(*map(Text, shown))
    return table
