"""What became of a model in a TensorRT engine, read from its build's log or from its inspector."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from edgevit.backends.base import LinearKernel, join_products
from edgevit.backends.kernel_report import AttentionKernel, Counts, Kernel, KernelKind, KernelReport
from edgevit.backends.tensorrt.fusion import AttentionNodes, parsed_attentions, parsed_linears
from edgevit.backends.tensorrt.kernel_log import (
    Listed,
    ParsedNode,
    Tensor,
    parse_graph,
    parse_inspection,
    parse_kernels,
)
from edgevit.errors import BundleError
from edgevit.graph.node_facts import Product

#: Operations, as names of compiled kernels abbreviate them, that compute nothing.
_MOVES = frozenset(("Cast", "Conc", "Expa", "Gath", "Move", "Padd", "Resh", "Slic", "Sque", "Tran", "Unsq"))
_PRODUCT = "Fc"
_COMPILED = re.compile(r"__myl_(?P<operations>[A-Za-z]+?)(_myl\d+_\d+)?\Z")


def report_of_log(lines: Sequence[str], products: Sequence[Product] = ()) -> KernelReport:
    """Return the report that the lines of a detailed build log give; TensorRT-RTX lists its kernels there.

    ``products`` are those that the model's file lists.

    Raises:
        BundleError: if they list no kernels.

    """
    kernels = parse_kernels(lines)
    if not kernels:
        raise BundleError(
            "the build's log lists no kernels", remedy="report it with the versions that `edgevit doctor` prints"
        )
    return _report(kernels, parse_graph(lines), products)


def report_of_inspection(inspection: str, lines: Iterable[str], products: Sequence[Product] = ()) -> KernelReport:
    """Return the report that an engine's inspector gives, as JSON; ``lines`` of its build's log tell of the nodes.

    ``products`` are those that the model's file lists.

    Raises:
        BundleError: if the inspector does not tell what the kernels are.

    """
    return _report(parse_inspection(inspection), parse_graph(lines), products)


def _report(listed: Sequence[Listed], nodes: Mapping[str, ParsedNode], products: Sequence[Product]) -> KernelReport:
    kernels = [_kernel(each, nodes) for each in listed]
    linears, warnings = _linears(kernels, nodes.values(), {product.node: product.layer for product in products})
    integers = any(linear.integer for linear in linears)
    attentions = []
    for attention in parsed_attentions(nodes.values()):
        fused = next((kernel for kernel in kernels if attention.nodes <= set(kernel.nodes)), None)
        attentions.append(AttentionKernel(name=attention.name, fused=None if fused is None else fused.computes))
        warnings += _improvable_reasons(attention, fused, among_integers=integers)
    return KernelReport(
        counts=Counts(
            kernels=len(kernels),
            gemms=dict(Counter(str(kernel.computes) for kernel in kernels if kernel.kind == "gemm")),
            fused_attentions=dict(Counter(each.fused for each in attentions if each.fused is not None)),
            reformats=sum(kernel.kind == "reformat" for kernel in kernels),
        ),
        linears=tuple(linears),
        attentions=tuple(attentions),
        kernels=tuple(kernels),
        warnings=_grouped(warnings),
    )


def _kernel(listed: Listed, nodes: Mapping[str, ParsedNode]) -> Kernel:
    largest = max(listed.constants, key=lambda constant: constant.size, default=None)
    kind = _kind(listed, nodes)
    return Kernel(
        name=listed.name,
        kind=kind,
        inputs=_types(listed.inputs),
        outputs=_types(listed.outputs),
        computes=_computes(listed) if kind in ("gemm", "convolution", "attention") else None,
        weight=None if largest is None else largest.type,
        nodes=listed.nodes,
    )


def _types(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    return tuple(tensor.type for tensor in tensors)


def _kind(listed: Listed, nodes: Mapping[str, ParsedNode]) -> KernelKind:
    operators = Counter(nodes[name].op_type for name in listed.nodes if name in nodes)
    operations, layer_type = _operations(listed), listed.layer_type.lower()
    if operators["Softmax"] and operators["MatMul"] > 1:
        return "attention"
    if "gemm" in layer_type or "matrix" in layer_type or _PRODUCT in operations:
        return "gemm"
    if "conv" in layer_type or layer_type == "correlation":
        return "convolution"
    moves = bool(operations) and _MOVES.issuperset(operations)
    return "reformat" if moves or layer_type in ("reformat", "shuffle") else "other"


def _operations(listed: Listed) -> list[str]:
    """Return what a compiled kernel does, in order; of a library's kernel the name does not tell."""
    compiled = _COMPILED.fullmatch(listed.name)
    return re.findall("[A-Z][a-z]+", compiled["operations"]) if compiled else []


def _computes(listed: Listed) -> str:
    """Return the type that a kernel multiplies in: the widest that goes in, or what it makes of that before."""
    operations = _operations(listed)
    types = _types(listed.inputs)
    if _PRODUCT in operations and "Cast" in operations[: operations.index(_PRODUCT)]:  # it dequantizes first
        types = tuple(kind for kind in _types((*listed.inputs, *listed.constants, *listed.outputs)) if _is_float(kind))
    widths = {kind: int("0" + re.sub(r"\D", "", kind)) for kind in types}
    return max(sorted(widths), key=lambda kind: widths[kind], default="unknown")


def _is_float(kind: str) -> bool:
    return kind in ("float32", "float16", "bfloat16")


def _linears(
    kernels: Sequence[Kernel], nodes: Iterable[ParsedNode], layers: Mapping[str, str]
) -> tuple[list[LinearKernel], list[tuple[str, str]]]:
    """Return how each Linear layer is executed, and of those that are quantized and run in float, the reason.

    ``layers`` are the layers that products with other names compute, by these names.
    """
    found, warnings = [], []
    for linear in parsed_linears(nodes):
        holding = [kernel for kernel in kernels if linear.name in kernel.nodes]
        kernel = next((each for each in holding if each.kind == "gemm"), holding[0] if holding else None)
        if kernel is None:
            continue
        library = "gemm" if kernel.kind == "gemm" else "compiled"
        computes = kernel.computes or next(iter(sorted(kernel.inputs)), "unknown")
        found.append(
            LinearKernel(
                layer=layers.get(linear.name, linear.name),
                kernel=f"{library} {computes}",
                integer=computes == "int8",
                weight=kernel.weight or "computed",
            )
        )
        if linear.quantized and computes not in ("int8", "float8"):
            warnings.append((linear.name, f"is quantized, but multiplied in {computes}: {linear.float_reason()}"))
    return join_products(found), warnings


def _improvable_reasons(
    attention: AttentionNodes, fused: Kernel | None, *, among_integers: bool
) -> list[tuple[str, str]]:
    """Return, as (name, reason), what ``attention`` could do better, or not do where Linear layers are in integers."""
    if fused is None:
        return [(attention.name, f"is not one kernel: {attention.unfused_reason()}")]
    if attention.quantized and fused.computes not in ("int8", "float8"):
        said = f"is quantized, but its kernel multiplies in {fused.computes}: {attention.float_reason()}"
        return [(attention.name, said)]
    if among_integers and fused.computes != "int8" and (limit := attention.size_reason()):
        return [(attention.name, f"is in {fused.computes} and cannot be in INT8: {limit}")]
    return []


def _grouped(warnings: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return one line for all names with the same reason."""
    names: dict[str, list[str]] = {}
    for name, reason in warnings:
        names.setdefault(reason, []).append(name)
    return tuple(
        f"'{first}'{f' and {len(rest)} more' if rest else ''} {reason}" for reason, (first, *rest) in names.items()
    )
