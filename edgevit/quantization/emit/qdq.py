"""A Linear layer as DQ of its input and of its weight, MatMul, and Add of the bias: only standard operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from edgevit.quantization.emit.rewrite import QuantizedLinear

#: Returns the nodes that add the bias of a layer to its product; none where it has no bias.
AddBias = Callable[[QuantizedLinear, ir.Value], list[ir.Node]]


def bias_nodes(linear: QuantizedLinear, product: ir.Value) -> list[ir.Node]:
    """Return an Add of the bias (N,)."""
    if linear.bias is None:
        return []
    bias = linear.constant("bias.float32", linear.bias)
    return [linear.node("add_bias", "Add", [product, bias], linear.output.shape)]


def put_in_place(parts: Sequence[QuantizedLinear], activation: ir.Value, bias_nodes: AddBias = bias_nodes) -> None:
    """Put the nodes of each part of a layer in its place; ``activation`` is the layer's input, dequantized."""
    for part in parts:
        weight = part.dequantized_weight()
        product = part.product("MatMul", [activation, weight.outputs[0]])
        part.put_in_place([weight, product, *bias_nodes(part, product.outputs[0])])
