"""What TensorRT's parser rejects in a quantized ONNX file, and what it takes but then runs in float without a word.

Found by its parser and compiler (TensorRT-RTX 1.7.1), not by its documentation alone: tests show them a file for each
rule. What is attention and what a LayerNorm in several nodes is said in ``graph.patterns``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgevit.errors import VerificationError
from edgevit.graph.linears import load_graph
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.patterns import AttentionProducts, attention_around, dequantizer_of, is_decomposed_layer_norm
from edgevit.quantization.emit import DIALECTS, dialect_called
from edgevit.quantization.emit.dialect import LintProfile, UnfusedReason

Rule = Literal[
    "standard-operators",
    "integer-operators",
    "dynamic-quantization",
    "signed-activations",
    "zero-point",
    "int32-bias",
    "per-tensor-activations",
    "weight-axis",
    "scale-opset",
    "attention-all-or-none",
    "attention-bias",
    "attention-output",
    "attention-size",
    "attention-type",
    "layer-normalization",
    "split-product",
    "legacy-scales",
    "legacy-opset",
]

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_INTEGER_OPERATORS = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
_FLOAT16_SCALES = 19  # the first opset whose Q/DQ take scales in float16


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that ``node`` breaks, and how."""

    rule: Rule
    node: str
    reason: str


def lint(path: Path, dialect: str) -> list[Violation]:
    """Return what TensorRT would reject in the ONNX file ``path``, or run slower than it could.

    ``dialect`` is what the file is in, which may have rules of its own, on types, sizes, scales or opset. Files in any
    other form are held to those that go for all versions.

    Raises:
        GraphError: if it is no valid ONNX file.

    """
    model = load_graph(path)
    InferShapes()(model)
    opset = model.opset_imports.get("", 0)
    profile = dialect_called(dialect).lint or LintProfile()
    attention = partial(_attention, unfused_reason=profile.unfused_reason)
    rules: tuple[_RuleCheck, ...] = (*_RULES, attention, *(_OPTIONAL[rule] for rule in profile.rules))
    found = [violation for node in model.graph for rule in rules for violation in rule(node)]
    return [*found, *_scale_types(model.graph, opset), *_opset(model.graph, opset, profile)]


def check_tensorrt(path: Path, dialect: str) -> None:
    """Check that the ONNX file ``path`` breaks none of TensorRT's rules for its ``dialect``.

    Raises:
        VerificationError: if it breaks one; the message names the first nodes.
        GraphError: if it is no valid ONNX file.

    """
    found = lint(path, dialect)
    if found:
        named = "; ".join(f"'{each.node}': {each.reason} ({each.rule})" for each in found[:3])
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise VerificationError(
            f"TensorRT would not take {path.name} as it is: {named}{more}",
            remedy=_remedy({each.rule for each in found}, dialect),
        )


def _remedy(broken: set[Rule], dialect: str) -> str:
    """Return what helps where rules are ``broken``: never the dialect that has broken them."""
    profiles = {name: dialect_called(name).lint for name in DIALECTS}
    free = " or ".join(name for name, profile in profiles.items() if profile is None)
    if "layer-normalization" in broken:
        return (
            "export the model to ONNX again with opset 17 or later, which has LayerNormalization, then edgevit export; "
            f"or quantize with --dialect {free}"
        )
    profile = profiles[dialect] or LintProfile()
    own = {*profile.rules, *(("legacy-opset",) if profile.newest_opset else ())}
    others = [name for name, each in profiles.items() if each is not None and name != dialect]
    return f"quantize with --dialect {' or '.join(others) if broken <= own else free}"


def _operators(node: ir.Node) -> Iterator[Violation]:
    name = _name(node)
    if node.domain not in ("", "ai.onnx"):
        yield Violation("standard-operators", name, f"{node.op_type} is an operator of {node.domain}")
    elif node.op_type in _INTEGER_OPERATORS:
        yield Violation("integer-operators", name, f"{node.op_type} is not Q/DQ")
    elif node.op_type == "DynamicQuantizeLinear":
        yield Violation("dynamic-quantization", name, "ranges must be known beforehand")


def _quantization(node: ir.Node) -> Iterator[Violation]:
    if node.op_type not in _QDQ:
        return
    name, kind = _name(node), _integer_type(node)
    if kind == ir.DataType.INT32:
        yield Violation("int32-bias", name, "a bias must be float, not INT32 with a scale")
    elif kind == ir.DataType.UINT8:
        yield Violation("signed-activations", name, "UINT8, where only INT8 is known")
    zero_point = _value(node, 2)
    if zero_point is not None and np.any(zero_point != 0):
        yield Violation("zero-point", name, "the zero point is not 0")
    scale = _value(node, 1)
    if scale is not None and scale.size > 1:
        if _value(node, 0) is None:
            yield Violation("per-tensor-activations", name, f"{scale.size} scales for an activation")
        else:
            yield from _weight_axis(node)


def _weight_axis(node: ir.Node) -> Iterator[Violation]:
    """Check that the scales of a weight are one per output of the product, not per input."""
    axis, weight = node.attributes.get_int("axis", 1), _value(node, 0)
    axis += weight.ndim if weight is not None and axis < 0 else 0
    for product, position in node.outputs[0].uses():
        if product.op_type == "MatMul" or (product.op_type == "Gemm" and not product.attributes.get_int("transB", 0)):
            outputs = 1
        elif product.op_type in ("Gemm", "Conv"):
            outputs = 0
        else:
            continue
        if position == 1 and axis != outputs:
            yield Violation("weight-axis", _name(node), f"one scale per input of '{_name(product)}', not per output")


def _attention(node: ir.Node, unfused_reason: UnfusedReason | None) -> Iterator[Violation]:
    """Check that of query, key, softmax and value all four are quantized, or none, and that INT8 is fused."""
    found = attention_around(node)
    if found is None:
        return
    quantized = [_dequantized_type(each) for each in found.dequantizers()]
    count = sum(kind is not None for kind in quantized)
    if 0 < count < len(quantized):
        yield Violation("attention-all-or-none", _name(node), f"{count} of {len(quantized)} factors are quantized")
    elif ir.DataType.INT8 in quantized and (reason := _size_reason(found, unfused_reason)) is not None:
        yield Violation("attention-size", _name(node), reason)
    elif ir.DataType.INT8 in quantized and not found.ends_quantized():
        yield Violation("attention-output", _name(node), "INT8 attention is fused if what it gives is quantized too")
    elif count and found.adds_computed():
        yield Violation("attention-bias", _name(node), "what is added to its scores is no constant: it is in float16")


def _dequantized_type(dequantizer: ir.Node | None) -> ir.DataType | None:
    if dequantizer is None or dequantizer.inputs[0] is None:
        return None
    return dequantizer.inputs[0].dtype or ir.DataType.UNDEFINED


def _size_reason(attention: AttentionProducts[ir.Node], unfused_reason: UnfusedReason | None) -> str | None:
    """Return why it would not be fused in INT8 for its size; None if it would, or that is not known."""
    size, tokens = attention.head_size, attention.tokens
    return None if unfused_reason is None or size is None or tokens is None else unfused_reason(size, tokens)


def _attention_type(node: ir.Node) -> Iterator[Violation]:
    """Check that float attention is in float16."""
    found = attention_around(node)
    query = None if found is None or any(found.dequantizers()) else found.scores.inputs[0]
    if query is not None and query.dtype == ir.DataType.FLOAT:
        yield Violation("attention-type", _name(node), "attention in float32 is not fused, in float16 it is")


def _layer_normalization(node: ir.Node) -> Iterator[Violation]:
    if is_decomposed_layer_norm(node):
        yield Violation(
            "layer-normalization", _name(node), "a LayerNorm in several nodes: its squares overflow float16"
        )


def _split_product(node: ir.Node) -> Iterator[Violation]:
    """Check that query, key and value of float attention are not one quantized product that a Split cuts apart."""
    found = attention_around(node)
    product = None if found is None or any(found.dequantizers()) else found.product_cut_apart()
    if product is not None and all(dequantizer_of(factor) for factor in product.inputs[:2]):
        yield Violation("split-product", _name(product), "what a Split cuts for float attention is multiplied in float")


def _scale_types(graph: ir.Graph, opset: int) -> Iterator[Violation]:
    for node in _float16_scales(graph):
        if opset < _FLOAT16_SCALES:
            yield Violation("scale-opset", _name(node), f"a float16 scale needs opset {_FLOAT16_SCALES}, not {opset}")


def _opset(graph: ir.Graph, opset: int, profile: LintProfile) -> Iterator[Violation]:
    newest = profile.newest_opset
    if newest is not None and opset > newest:
        yield Violation("legacy-opset", str(graph.name), f"opset {opset}, where up to {newest} is read")


def _legacy_scales(node: ir.Node) -> Iterator[Violation]:
    for each in _float16_scales([node]):
        yield Violation("legacy-scales", _name(each), "before TensorRT 10.12, scales are float32")


def _float16_scales(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    for node in nodes:
        scale = _value(node, 1) if node.op_type in _QDQ else None
        if scale is not None and scale.dtype == np.float16:
            yield node


_RuleCheck = Callable[[ir.Node], Iterator[Violation]]
_RULES: tuple[_RuleCheck, ...] = (_operators, _quantization, _layer_normalization)
#: Those that only files in some dialects are held to.
_OPTIONAL: Mapping[str, _RuleCheck] = {
    "attention-type": _attention_type,
    "split-product": _split_product,
    "legacy-scales": _legacy_scales,
}


def _name(node: ir.Node) -> str:
    return node.name or str(node.outputs[0].name)


def _value(node: ir.Node, position: int) -> np.ndarray | None:
    """Return the constant that is an input of ``node``, None where it is none."""
    value = node.inputs[position] if len(node.inputs) > position else None
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _integer_type(node: ir.Node) -> ir.DataType | None:
    """Return the type that Q gives or DQ takes."""
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_point is not None and zero_point.dtype is not None:
        return zero_point.dtype
    if node.op_type == "QuantizeLinear":
        return ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
    return node.inputs[0].dtype if node.inputs[0] is not None else None
