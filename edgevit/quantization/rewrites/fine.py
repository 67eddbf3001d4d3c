"""Multiply what rounding leaves of a Linear layer's input, too: 16 bits for the few layers that need them.

Let r(x) be the input x on the grid of its 8-bit scale. Then x W = r(x) W + (x - r(x)) W, whose second product has an
input no wider than one step, and 8 bits of its own. Both are integer products; the price is the second one, and a few
element-wise operators. Noise in the first layers counts most: what they add to is still small there.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.quantization.linears import LinearLayer, find_linears
from edgevit.quantization.plan import LinearQuantization
from edgevit.quantization.replace import add_constant
from edgevit.quantization.rewrites.narrow import follows_activation
from edgevit.quantization.rewrites.sites import ValueSource, find_sites


def first_to_add(graph: ir.Graph, count: int) -> list[LinearLayer]:
    """Return the first ``count`` layers that end an attention or an MLP, in the order in which they run."""
    after_values = {
        reader.name for site in find_sites(graph) if isinstance(site.source, ValueSource) for reader in site.readers
    }
    ending = [layer for layer in find_linears(graph) if layer.name in after_values or _ends_mlp(layer)]
    return ending[:count]


def _ends_mlp(layer: LinearLayer) -> bool:
    node = layer.input.producer()
    narrowed = node is not None and node.name == f"{layer.name}.narrow"
    return narrowed or follows_activation(layer)


def rest_name(layer: LinearLayer) -> str:
    """Return the name of the product that takes what rounding leaves of the input of ``layer``: a part of it."""
    return f"{layer.name}[rest]"


def multiply_rest(graph: ir.Graph, layer: LinearLayer, quantization: LinearQuantization) -> None:
    """Let ``layer`` read its input on the grid of ``quantization``, and add the product of what that leaves."""
    name, exact, sum_ = layer.name, layer.input, layer.output
    scale = add_constant(graph, f"{name}.grid.scale", np.array(quantization.activation_scale, dtype=np.float32))
    zero_point = add_constant(graph, f"{name}.grid.zero_point", np.asarray(quantization.zero_point()))
    rounded = ir.node("QuantizeLinear", [exact, scale, zero_point], name=f"{name}.grid.quantize")
    grid = ir.node("DequantizeLinear", [rounded.outputs[0], scale, zero_point], name=f"{name}.grid.dequantize")
    rest = ir.node("Sub", [exact, grid.outputs[0]], name=f"{name}.grid.rest")
    weight = add_constant(graph, f"{rest_name(layer)}.weight", layer.weight.copy())
    product = ir.node("MatMul", [rest.outputs[0], weight], name=rest_name(layer))
    total = ir.node("Add", [sum_, product.outputs[0]], name=f"{name}.total")
    for node, like in ((rounded, exact), (grid, exact), (rest, exact), (product, sum_), (total, sum_)):
        node.outputs[0].name = f"{node.name}.output"
        node.outputs[0].shape, node.outputs[0].type = like.shape, like.type
    rounded.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(quantization.zero_point().dtype))
    sum_.replace_all_uses_with(total.outputs[0], replace_graph_outputs=True)
    total.replace_input_with(0, sum_)
    layer.product.replace_input_with(0, grid.outputs[0])
    graph.insert_before(layer.product, [rounded, grid, rest, product])
    graph.insert_after(layer.addition or layer.product, total)


def off_the_grid(value: ir.Value) -> ir.Value:
    """Return what ``multiply_rest`` has put on a grid to make ``value``, or ``value`` itself if it has not.

    An emitter rounds that for itself: engines look for Q/DQ that feed one product alone.
    """
    grid = value.producer()
    if grid is None or grid.op_type != "DequantizeLinear" or not str(grid.name).endswith(".grid.dequantize"):
        return value
    rounded = grid.inputs[0].producer() if grid.inputs[0] is not None else None
    exact = None if rounded is None else rounded.inputs[0]
    return value if exact is None else exact
