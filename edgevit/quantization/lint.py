"""What TensorRT's parser rejects in a quantized ONNX file, and what it takes but then runs in float without a word.

Found by its parser and compiler (TensorRT-RTX 1.7.1), not by its documentation alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgevit.errors import VerificationError
from edgevit.quantization.linears import load_graph

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
]

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_INTEGER_OPERATORS = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
_FLOAT16_SCALES = 19  # the first opset whose Q/DQ take scales in float16
_PASSED_THROUGH = ("Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that ``node`` breaks, and how."""

    rule: Rule
    node: str
    reason: str


def lint(path: Path) -> list[Violation]:
    """Return what TensorRT would reject in the ONNX file ``path``, or run in float though it is quantized.

    Raises:
        GraphError: if it is no valid ONNX file.

    """
    model = load_graph(path)
    opset = model.opset_imports.get("", 0)
    found = [violation for node in model.graph for rule in _RULES for violation in rule(node)]
    return [*found, *_scale_types(model.graph, opset)]


def check_tensorrt(path: Path) -> None:
    """Check that the ONNX file ``path`` breaks none of TensorRT's rules.

    Raises:
        VerificationError: if it breaks one; the message names the first nodes.
        GraphError: if it is no valid ONNX file.

    """
    found = lint(path)
    if found:
        named = "; ".join(f"'{each.node}': {each.reason} ({each.rule})" for each in found[:3])
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise VerificationError(
            f"TensorRT would not take {path.name} as it is: {named}{more}",
            remedy="quantize with --dialect tensorrt, tensorrt-legacy or portable",
        )


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


def _attention(node: ir.Node) -> Iterator[Violation]:
    """Check that of query, key, softmax and value all four are quantized, or none."""
    if node.op_type != "Softmax":
        return
    scores = _behind(node.inputs[0], ("Add", "Mul", "Div", *_PASSED_THROUGH))
    quantized = [] if scores is None or scores.op_type != "MatMul" else [_is_dequantized(v) for v in scores.inputs]
    for product in _products(node.outputs[0]):
        quantized += [_is_dequantized(value) for value in product.inputs]
    if any(quantized) and not all(quantized):
        count = sum(quantized)
        yield Violation("attention-all-or-none", _name(node), f"{count} of {len(quantized)} factors are quantized")


def _scale_types(graph: ir.Graph, opset: int) -> Iterator[Violation]:
    for node in graph:
        scale = _value(node, 1) if node.op_type in _QDQ else None
        if scale is not None and scale.dtype == np.float16 and opset < _FLOAT16_SCALES:
            yield Violation("scale-opset", _name(node), f"a float16 scale needs opset {_FLOAT16_SCALES}, not {opset}")


_RULES: tuple[Callable[[ir.Node], Iterator[Violation]], ...] = (_operators, _quantization, _attention)


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


def _behind(value: ir.Value | None, through: tuple[str, ...]) -> ir.Node | None:
    """Return the node that ``value`` comes from, if only ``through`` lie between."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in through:
        sources = [source.producer() for source in node.inputs if source is not None and source.producer() is not None]
        node = sources[0] if sources else None
    return node


def _products(value: ir.Value) -> list[ir.Node]:
    """Return the MatMuls that take ``value``, or what Q/DQ make of it."""
    found: list[ir.Node] = []
    for node in value.consumers():
        if node.op_type == "MatMul":
            found.append(node)
        elif node.op_type in _QDQ:
            found += _products(node.outputs[0])
    return found


def _is_dequantized(value: ir.Value | None) -> bool:
    node = _behind(value, ("Mul", *_PASSED_THROUGH))
    return node is not None and node.op_type == "DequantizeLinear"
