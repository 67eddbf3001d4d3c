"""A Linear layer as Q/DQ, DQ of the weight, MatMul and Add: standard operators, as most engines look for them."""

from __future__ import annotations

from edgevit.quantization.emit.rewrite import QuantizedLinear


def substitute(linear: QuantizedLinear) -> None:
    """Put the layer's nodes in its place."""
    activation, weight = linear.dequantize_input(), linear.dequantized_weight()
    nodes = [weight, linear.product("MatMul", [activation, weight.outputs[0]])]
    if linear.bias is not None:
        bias = linear.constant("bias.float32", linear.bias)
        nodes.append(linear.node("add_bias", "Add", [nodes[-1].outputs[0], bias], linear.output.shape))
    linear.put_in_place(nodes)
