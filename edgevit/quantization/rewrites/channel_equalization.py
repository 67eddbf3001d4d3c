"""Activation channel equalization: divide the widest inputs of a layer, where no constant in front of them can.

Per tensor, the widest channel sets the step for all. What follows a GELU cannot be scaled by the layer before it, since
GELU(x / s) is not GELU(x) / s; but a Mul can do it, which engines that fuse element-wise operators take along for
nothing. Channels are only ever made narrower: a channel that is made wider would be clipped by the first image that
goes beyond what calibration saw of it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.editing import add_constant, node_like, set_linear
from edgevit.graph.linears import LinearLayer, as_it_is_now
from edgevit.graph.node_facts import Role, mark_node

_ELEMENT_WISE = ("Gelu", "Relu", "Sigmoid", "Tanh", "Identity")

#: What a product is made of where an activation function is written out: GELU with Erf or Tanh, SiLU and QuickGELU with
#: Sigmoid. The curve lies at most so many steps behind the product.
_CURVES, _BETWEEN, _STEPS = ("Erf", "Sigmoid", "Tanh"), ("Add", "Mul"), 3


def follows_activation(value: ir.Value) -> bool:
    """Say whether ``value`` is what an activation function gives, and is read once."""
    return comes_from_activation(value) and len(value.uses()) == 1


def comes_from_activation(value: ir.Value) -> bool:
    """Say whether ``value`` is what an activation function gives, and only nodes of the graph read it.

    It is one operator, or a product of several, as exporters write them for older opsets.
    """
    node = value.producer()
    if node is None or node.domain or value.is_graph_output():
        return False
    return node.op_type in _ELEMENT_WISE or (node.op_type == "Mul" and _has_curve(node, _STEPS))


def _has_curve(node: ir.Node, steps: int) -> bool:
    """Say whether one of the curves lies behind ``node``, at most ``steps`` element-wise operators away."""
    before = [value.producer() for value in node.inputs if value is not None]
    return steps > 0 and any(
        each is not None and (each.op_type in _CURVES or (each.op_type in _BETWEEN and _has_curve(each, steps - 1)))
        for each in before
    )


def equalize_input(graph: ir.Graph, layer: LinearLayer, scale: NDArray[np.float32]) -> None:
    """Let ``layer`` read x / scale, with ``scale`` (K,), and give what it gave before."""
    layer = as_it_is_now(layer)
    inverse = add_constant(graph, f"{layer.name}.inverse_scale", (1 / scale).astype(np.float32))
    divided = node_like(graph, f"{layer.name}.equalize", "Mul", [layer.input, inverse], layer.input)
    mark_node(divided, Role.EQUALIZE, layer.name)
    graph.insert_before(layer.matmul, divided)
    layer.matmul.replace_input_with(0, divided.outputs[0])
    set_linear(graph, layer, (scale[:, None] * layer.weight).astype(np.float32), None)
