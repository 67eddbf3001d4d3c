"""Divide the widest inputs of a Linear layer, where no constant in front of them can.

Per tensor, the widest channel sets the step for all. What follows a GELU cannot be scaled by the layer before it, since
GELU(x / s) is not GELU(x) / s; but a Mul can do it, which engines that fuse element-wise operators take along for
nothing. Channels are only ever made narrower: a channel that is made wider would be clipped by the first image that
goes beyond what calibration saw of it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.quantization.linears import LinearLayer, as_it_is_now
from edgevit.quantization.rewrites.constants import set_constant, set_linear

_ELEMENT_WISE = ("Gelu", "Relu", "Sigmoid", "Tanh", "Identity")


def follows_activation(value: ir.Value) -> bool:
    """Say whether ``value`` is what an element-wise operator gives, and is read once."""
    return comes_from_activation(value) and len(value.uses()) == 1


def comes_from_activation(value: ir.Value) -> bool:
    """Say whether ``value`` is what an element-wise operator gives, and only nodes of the graph read it."""
    node = value.producer()
    return node is not None and node.op_type in _ELEMENT_WISE and not node.domain and not value.is_graph_output()


def narrow_input(graph: ir.Graph, layer: LinearLayer, scale: NDArray[np.float32]) -> None:
    """Let ``layer`` read x / scale, with ``scale`` (K,), and give what it gave before."""
    layer = as_it_is_now(layer)
    divided = ir.node("Mul", [layer.input, None], name=f"{layer.name}.narrow")
    output = divided.outputs[0]
    output.name, output.shape, output.type = f"{layer.name}.narrowed", layer.input.shape, layer.input.type
    graph.insert_before(layer.product, divided)
    set_constant(graph, divided, 1, f"{layer.name}.inverse_scale", (1 / scale).astype(np.float32))
    layer.product.replace_input_with(0, output)
    set_linear(graph, layer, (scale[:, None] * layer.weight).astype(np.float32), None)
