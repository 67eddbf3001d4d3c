"""Shift a Linear layer's input as a whole, by an Add in front of it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.graph.editing import add_constant, node_like, set_linear
from edgevit.graph.linears import LinearLayer, as_it_is_now
from edgevit.graph.node_facts import Role, is_marked, mark_node


def shift_input(graph: ir.Graph, layer: LinearLayer, shift: float) -> None:
    """Let ``layer``, which must have a bias, read x - shift, and give what it gave before.

    For signed integers around 0, whose half no one-sided input uses: a GELU gives -0.17 and up. It is for inputs that
    no constant in front of them can shift. One Add; engines that fuse element-wise operators take it along for nothing.
    """
    layer = as_it_is_now(layer)
    assert layer.bias is not None  # noqa: S101 - the caller looks
    constant = add_constant(graph, f"{layer.name}.shift", np.array([-shift], dtype=np.float32))
    moved = node_like(graph, f"{layer.name}.shifted", "Add", [layer.input, constant], layer.input)
    mark_node(moved, Role.SHIFT, layer.name)
    graph.insert_before(layer.matmul, moved)
    layer.matmul.replace_input_with(0, moved.outputs[0])
    bias = layer.bias + shift * layer.weight.sum(axis=0, dtype=np.float64)
    set_linear(graph, layer, layer.weight, bias.astype(np.float32))


def unshift_input(graph: ir.Graph, layer: LinearLayer) -> float:
    """Undo ``shift_input``, and return by how much the layer's input was shifted; 0 where it was not.

    A float has its precision around 0: there a GELU's many small values belong.
    """
    layer = as_it_is_now(layer)
    moved = layer.input.producer()
    if moved is None or not is_marked(moved, Role.SHIFT, layer.name) or layer.bias is None:
        return 0.0
    constant = ir.convenience.get_const_tensor(moved.inputs[1])  # type: ignore[arg-type]  # shift_input's own
    shift = -float(constant.numpy().item())  # type: ignore[union-attr]
    layer.matmul.replace_input_with(0, moved.inputs[0])
    bias = layer.bias - shift * layer.weight.sum(axis=0, dtype=np.float64)
    set_linear(graph, layer, layer.weight, bias.astype(np.float32))
    return shift
