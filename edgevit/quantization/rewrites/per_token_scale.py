"""Give each token a scale of its own in front of a Linear layer, where no constant scale fits all.

Behind a GELU some tokens have much larger values than others. So let r = max(largest of x, 1) for each token x; then
x W + b = r (x / r) W + b, and x / r ends at 1. What of that is negative is small: the functions that are taken for
activations here go down to -0.28 (SiLU), and r is at least 1.
Where no value that was seen is as large as 1, r is at least the largest of them: else most levels would go unused.

The engine computes r, a maximum over channels, a division and a product over what the layer gives: as much as a second
product of one token costs, and less than one of all.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.graph.editing import add_constant, node_like
from edgevit.graph.linears import LinearLayer
from edgevit.graph.node_facts import Role, is_marked, mark_node
from edgevit.quantization.calibration.calibration_table import ChannelStatistics

#: The least that a token is divided by where values reach it; one whose largest value is less is divided by this. Far
#: below 1 what is negative would set the range; benchmarks/results/ablations.md has what other values give.
LEAST = 1.0

_AXES_ARE_AN_INPUT_SINCE = 18


def least_divisor(channels: ChannelStatistics) -> float:
    """Return the least to divide tokens by whose ``channels`` calibration saw: 1, or the largest magnitude below it."""
    reach = float(max(channels.maximum.max(), -channels.minimum.min()))
    return reach if np.finfo(np.float32).tiny <= reach < LEAST else LEAST


def add_per_token_scale(graph: ir.Graph, layer: LinearLayer, least: float = LEAST) -> None:
    """Let ``layer`` read each token divided by its largest value, or by ``least``, and give what it gave before.

    Its bias, if it is an Add, is added behind that: the product alone is the layer afterwards.
    """
    name, value, product = layer.name, layer.input, layer.matmul.outputs[0]
    floor = add_constant(graph, f"{name}.least", np.array(least, dtype=np.float32))
    largest = _largest(graph, name, value)
    scale = node_like(graph, f"{name}.per_token_scale", "Max", [largest.outputs[0], floor], value)
    for node in (largest, scale):
        mark_node(node, Role.PART, name)
        node.outputs[0].shape = None if value.shape is None else ir.Shape([*value.shape[:-1], 1])
    inverse = node_like(graph, f"{name}.inverse", "Reciprocal", [scale.outputs[0]], scale.outputs[0])
    scaled = node_like(graph, f"{name}.scaled", "Mul", [value, inverse.outputs[0]], value)
    restored = node_like(graph, f"{name}.restored", "Mul", [product, scale.outputs[0]], product)
    mark_node(inverse, Role.PART, name)
    mark_node(restored, Role.PART, name)
    mark_node(scaled, Role.PER_TOKEN_SCALE, name)
    product.replace_all_uses_with(restored.outputs[0], replace_graph_outputs=True)
    restored.replace_input_with(0, product)
    layer.matmul.replace_input_with(0, scaled.outputs[0])
    graph.insert_before(layer.matmul, [largest, scale, inverse, scaled])
    graph.insert_after(layer.matmul, restored)


def _largest(graph: ir.Graph, name: str, value: ir.Value) -> ir.Node:
    if graph.opset_imports.get("", 0) < _AXES_ARE_AN_INPUT_SINCE:
        return node_like(graph, f"{name}.largest", "ReduceMax", [value], value, axes=[-1], keepdims=1)
    channels = add_constant(graph, f"{name}.channels", np.array([-1], dtype=np.int64))
    return node_like(graph, f"{name}.largest", "ReduceMax", [value, channels], value, keepdims=1)


def has_per_token_scale(layer: LinearLayer) -> bool:
    """Say whether ``add_per_token_scale`` was applied to ``layer``."""
    return is_marked(layer.input.producer(), Role.PER_TOKEN_SCALE, layer.name)
