"""Tables of kernels, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgevit.backends.base import LinearKernel
from edgevit.backends.kernel_report import Kernel, KernelReport
from edgevit.report.arithmetic import in_integers
from edgevit.shell import quoted
from edgevit.stages.kernels import ConvolutionKernel, VariantKernels

_NODES_SHOWN = 3


def kernels_shown(variants: Sequence[VariantKernels], bundle: Path, *, every: bool) -> RenderableType:
    """Return what is known of the kernels of ``variants``: a summary, and ``every`` layer or kernel if so."""
    parts = [part for variant in variants for part in _parts(variant, every=every)]
    if not every and any(variant.unknown is None for variant in variants):
        parts += [Text(f"\neach of them: edgevit inspect {quoted(bundle)} --kernels --all")]
    return Group(*parts)


def _parts(variant: VariantKernels, *, every: bool) -> Iterator[RenderableType]:
    if variant.unknown is not None:
        yield Text(f"{variant.variant}: kernels not known: {variant.unknown}")
    elif variant.report is None and variant.kernels is not None:
        yield Text(f"{variant.variant}: {in_integers(variant.kernels)}")
        yield from (Text(f"  {line}") for line in _counted(variant.linears))
        if every:
            yield _linears(variant.linears)
            if variant.convolutions:
                yield _convolutions(variant.convolutions)
    elif variant.report is not None:
        yield Text(f"{variant.variant}: {_sentence(variant.report)}")
        if every:
            yield _kernels(variant.report.kernels)
        yield from (Text(f"warning: {line}") for line in variant.report.warnings)


def _counted(linears: Sequence[LinearKernel]) -> Iterator[str]:
    """Say how many layers run on each kernel, and name the few that are not in integers where others are."""
    for kernel, count in Counter(linear.kernel for linear in linears).most_common():
        yield f"{count} on {kernel}"
    floats = [linear.layer for linear in linears if not linear.integer]
    if 0 < len(floats) < len(linears):
        more = f" and {len(floats) - _NODES_SHOWN} more" if len(floats) > _NODES_SHOWN else ""
        yield f"not in integers: {', '.join(floats[:_NODES_SHOWN])}{more}"


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


def _convolutions(convolutions: Sequence[ConvolutionKernel]) -> Table:
    table = Table("convolution", "multiply-adds", "integers")
    for each in convolutions:
        table.add_row(*map(Text, (each.name, f"{each.macs:,}", "yes" if each.integer else "no")))
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
