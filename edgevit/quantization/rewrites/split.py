"""Let a Linear layer multiply its widest inputs by themselves.

Per tensor, the widest channel sets the step for all. What follows a GELU cannot be scaled channel by channel, but its
channels can be put in any order: the widest go last, a Split takes them apart, and each part has a product and a step
of its own. Both are integer products; the price is a Split, a small product and an Add.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.quantization.linears import LinearLayer, as_it_is_now
from edgevit.quantization.replace import add_constant
from edgevit.quantization.rewrites.constants import set_linear

_ELEMENT_WISE = ("Gelu", "Relu", "Sigmoid", "Tanh", "Identity")


def wide_name(layer: LinearLayer) -> str:
    """Return the name of the part of ``layer`` that has the widest inputs."""
    return f"{layer.name}.wide"


def source_of(layer: LinearLayer, layers: dict[ir.Value, LinearLayer]) -> LinearLayer | None:
    """Return the layer, of ``layers`` by their outputs, that ``layer`` reads through an element-wise operator alone."""
    node = layer.input.producer()
    if node is None or node.op_type not in _ELEMENT_WISE or node.domain or layer.addition is None:
        return None
    if layer.output.is_graph_output():
        return None
    before = node.inputs[0]
    private = before is not None and len(before.uses()) == 1 and len(layer.input.uses()) == 1
    if before is None or not private or before.is_graph_output() or layer.input.is_graph_output():
        return None
    return layers.get(before)


def split_input(graph: ir.Graph, layer: LinearLayer, source: LinearLayer, wide: NDArray[np.int64]) -> None:
    """Let ``layer`` (with an Add for its bias) multiply its inputs ``wide`` by themselves; it gives what it gave.

    ``source`` is the layer that makes its inputs, as ``source_of`` finds it.
    """
    layer, source = as_it_is_now(layer), as_it_is_now(source)
    width = len(layer.weight)
    rest = np.setdiff1d(np.arange(width), wide)
    order = np.concatenate([rest, wide])
    set_linear(graph, source, source.weight[:, order], None if source.bias is None else source.bias[order])
    values, output = layer.input, layer.output
    sizes = add_constant(graph, f"{layer.name}.sizes", np.array([len(rest), len(wide)], dtype=np.int64))
    split = ir.node("Split", [values, sizes], attributes={"axis": -1}, num_outputs=2, name=f"{layer.name}.split")
    for part, suffix, count in zip(split.outputs, ("narrow", "wide"), (len(rest), len(wide)), strict=True):
        part.name, part.dtype = f"{layer.name}.{suffix}.input", ir.DataType.FLOAT
        part.shape = None if values.shape is None else ir.Shape([*values.shape[:-1], count])
    weight = add_constant(graph, f"{wide_name(layer)}.weight", layer.weight[wide])
    product = ir.node("MatMul", [split.outputs[1], weight], name=wide_name(layer))
    total = ir.node("Add", [output, product.outputs[0]], name=f"{layer.name}.total")
    for node in (product, total):
        node.outputs[0].name = f"{node.name}.output"
        node.outputs[0].shape, node.outputs[0].type = output.shape, output.type
    output.replace_all_uses_with(total.outputs[0], replace_graph_outputs=True)
    total.replace_input_with(0, output)
    layer.product.replace_input_with(0, split.outputs[0])
    graph.insert_before(layer.product, [split, product])
    assert layer.addition is not None  # noqa: S101 - source_of takes no other
    graph.insert_after(layer.addition, total)
    set_linear(graph, layer, layer.weight[rest], layer.bias)
