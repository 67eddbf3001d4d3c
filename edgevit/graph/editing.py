"""Change a graph: add constants to it, and put other nodes in the place of a Linear layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from edgevit.files import atomic_path
from edgevit.graph.linears import LinearLayer, find_linears, open_graph


def add_constant(graph: ir.Graph, name: str, values: NDArray[np.generic]) -> ir.Value:
    """Register ``values`` in ``graph`` as the constant ``name`` and return it."""
    value = ir.Value(name=name, const_value=ir.tensor(values, name=name))
    value.shape, value.dtype = ir.Shape(values.shape), ir.DataType.from_numpy(values.dtype)
    graph.register_initializer(value)
    return value


def replace_layer(graph: ir.Graph, layer: LinearLayer, nodes: Sequence[ir.Node]) -> None:
    """Put ``nodes`` in the place of ``layer``; the last one gives its output."""
    new = nodes[-1].outputs[0]
    new.shape, new.type = layer.output.shape, layer.output.type
    replaced = [layer.product] if layer.addition is None else [layer.product, layer.addition]
    ir.convenience.replace_nodes_and_values(graph, replaced[-1], replaced, nodes, [layer.output], [new])


def rewrite_linears(
    model: Path,
    path: Path,
    replacement: Callable[[ir.Graph, LinearLayer], Sequence[ir.Node]],
    *further: Callable[[ir.Graph], None],
) -> tuple[str, ...]:
    """Write to ``path`` the float32 ONNX file ``model`` with another form of each Linear layer; return their names.

    ``replacement`` gives the nodes for a layer; the last one gives its output. ``further`` changes follow.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    with open_graph(model) as onnx_model:
        layers = find_linears(onnx_model.graph)
        for layer in layers:
            replace_layer(onnx_model.graph, layer, replacement(onnx_model.graph, layer))
        common.RemoveUnusedNodesPass()(onnx_model)
        for change in further:
            change(onnx_model.graph)
        onnx_model.graph.sort()
        with atomic_path(path) as draft:
            ir.save(onnx_model, draft)
    return tuple(layer.name for layer in layers)


def node_like(
    name: str, op_type: str, inputs: list[ir.Value], like: ir.Value, **attributes: int | list[int]
) -> ir.Node:
    """Return a new node whose output, ``NAME.output``, has the shape and the type of ``like``."""
    node = ir.node(op_type, inputs, attributes=attributes, name=name)
    output = node.outputs[0]
    output.name, output.shape, output.type = f"{name}.output", like.shape, like.type
    return node
