"""Change a graph: constants and names of its own for what is added, other constants for its nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import GraphError
from edgevit.graph.linears import LinearLayer

_NAMES = "edgevit.names"


def add_constant(graph: ir.Graph, name: str, values: NDArray[np.generic]) -> ir.Value:
    """Register ``values`` in ``graph`` as the constant ``name``, or one like it where that is taken; return it."""
    name = free_name(graph, name)
    value = ir.Value(name=name, const_value=ir.Tensor(values, name=name))
    value.shape, value.dtype = ir.Shape(values.shape), ir.DataType.from_numpy(values.dtype)
    graph.register_initializer(value)
    return value


def set_constant(graph: ir.Graph, node: ir.Node, index: int, name: str, values: NDArray[np.float32]) -> None:
    """Let ``node`` read ``values`` as its input ``index``, under ``name``; other nodes keep what they read."""
    old = node.inputs[index] if index < len(node.inputs) else None
    tensor = ir.Tensor(np.ascontiguousarray(values, dtype=np.float32), name=name)
    if old is not None and old.is_initializer() and old.name == name and len(old.uses()) == 1:
        old.const_value, old.shape, old.dtype = tensor, ir.Shape(values.shape), ir.DataType.FLOAT
        return
    new = ir.Value(name=free_name(graph, name), const_value=tensor)
    new.shape, new.dtype = ir.Shape(values.shape), ir.DataType.FLOAT
    graph.register_initializer(new)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new)


def set_linear(
    graph: ir.Graph, layer: LinearLayer, weight: NDArray[np.float32], bias: NDArray[np.float32] | None
) -> None:
    """Give ``layer`` another weight (K, N) and bias (N,); a layer without a bias takes None only.

    Raises:
        GraphError: if there is a bias and the layer has none to put it in.

    """
    matmul, addition = layer.matmul, layer.addition
    if matmul.op_type == "Gemm":
        for attribute in ("transB", "alpha", "beta"):
            matmul.attributes.pop(attribute, None)
    set_constant(graph, matmul, 1, f"{layer.name}.weight", weight)
    if bias is None:
        return
    if matmul.op_type == "Gemm":
        set_constant(graph, matmul, 2, f"{layer.name}.bias", bias)
    elif addition is not None:
        index = 1 if addition.inputs[0] is matmul.outputs[0] else 0
        set_constant(graph, addition, index, f"{layer.name}.bias", bias)
    else:
        raise GraphError(f"'{layer.name}' has no bias to correct", remedy="export the model with biases")


def float_constant(value: ir.Value | None) -> NDArray[np.float32] | None:
    """Return the float32 values that the file fixes ``value`` to; None for others, and what is given at run time."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.dtype != ir.DataType.FLOAT else tensor.numpy()


class NodeBuilder:
    """Makes nodes for a graph, one behind another, whose names begin with ``prefix``; ``nodes`` go in together."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.nodes: list[ir.Node] = []
        self._graph, self.prefix = graph, prefix

    def constant(self, name: str, values: NDArray[np.generic] | list[int] | float) -> ir.Value:
        """Register a constant: integers are int64, a float is float32."""
        array = np.asarray(values, dtype=np.float32 if isinstance(values, float) else None)
        return add_constant(self._graph, f"{self.prefix}.{name}", array)

    def op(self, op_type: str, inputs: Sequence[ir.Value], name: str, **attributes: int | str | list[int]) -> ir.Value:
        """Add a node of one output, and return that."""
        return self.ops(op_type, inputs, name, 1, **attributes)[0]

    def ops(
        self, op_type: str, inputs: Sequence[ir.Value], name: str, outputs: int, **attributes: int | str | list[int]
    ) -> Sequence[ir.Value]:
        """Add a node of several ``outputs``, and return them."""
        called = free_name(self._graph, f"{self.prefix}.{name}")
        node = ir.node(op_type, inputs, attributes=attributes, num_outputs=outputs, name=called)
        for number, value in enumerate(node.outputs):
            value.name = free_name(self._graph, f"{called}.output" + (f"_{number}" if outputs > 1 else ""))
        self.nodes.append(node)
        return node.outputs


def node_like(
    graph: ir.Graph, name: str, op_type: str, inputs: list[ir.Value], like: ir.Value, **attributes: int | list[int]
) -> ir.Node:
    """Return a new node for ``graph``, not yet in it, whose output has the shape and the type of ``like``.

    It is called ``name``, or something like it where that is taken, and its output ``NAME.output``.
    """
    node = ir.node(op_type, inputs, attributes=attributes, name=free_name(graph, name))
    output = node.outputs[0]
    output.name, output.shape, output.type = free_name(graph, f"{node.name}.output"), like.shape, like.type
    return node


def replace_layer(graph: ir.Graph, layer: LinearLayer, nodes: Sequence[ir.Node]) -> None:
    """Put ``nodes`` in the place of ``layer``; the last one gives its output."""
    new = nodes[-1].outputs[0]
    new.shape, new.type = layer.output.shape, layer.output.type
    replaced = [layer.matmul] if layer.addition is None else [layer.matmul, layer.addition]
    ir.convenience.replace_nodes_and_values(graph, replaced[-1], replaced, nodes, [layer.output], [new])


def add_bias(graph: ir.Graph, layer: LinearLayer, bias: NDArray[np.float32]) -> ir.Value:
    """Add ``bias`` (N,) behind the MatMul of ``layer``, which has none, and return what that gives."""
    constant, old = add_constant(graph, f"{layer.name}.bias", bias), layer.output
    added = node_like(graph, f"{layer.name}.add_bias", "Add", [old, constant], old)
    ir.convenience.replace_all_uses_with(old, added.outputs[0], replace_graph_outputs=True)
    added.replace_input_with(0, old)
    if added.outputs[0].is_graph_output():  # it has the name that is asked for
        old.name, added.outputs[0].name = added.outputs[0].name, old.name
    graph.insert_after(layer.matmul, added)
    return added.outputs[0]


def free_name(graph: ir.Graph, name: str) -> str:
    """Return ``name``, or ``name_1``, ``name_2``... if a node or value of ``graph`` has it; nothing else gets it then.

    A user's own names may look like ours.
    """
    taken = _names(graph)
    count, candidate = 0, name
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _names(graph: ir.Graph) -> set[str | None]:
    """Return all names that are taken; collected once, and kept with the graph, but for a clone of it."""
    owner: int | None
    names: set[str | None]
    owner, names = graph.meta.get(_NAMES, (None, set()))
    if owner != id(graph):
        values = {value.name for node in graph for value in (*node.inputs, *node.outputs) if value is not None}
        names = values | {node.name for node in graph} | set(graph.initializers)
        graph.meta[_NAMES] = id(graph), names
    return names
