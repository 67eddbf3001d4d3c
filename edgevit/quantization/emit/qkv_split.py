"""Compute query, key and value by a product each, instead of one that is cut into three."""

from __future__ import annotations

import onnx_ir as ir

from edgevit.graph.editing import add_constant, free_name
from edgevit.graph.linears import LinearLayer, linears_in
from edgevit.graph.node_facts import Role, mark_node
from edgevit.graph.saving import tidy


def qkv_slices(layer: LinearLayer) -> list[tuple[slice, ir.Value]]:
    """Return the columns of ``layer`` that each output of a Split behind it takes, with that output.

    There is none if the layer's output goes anywhere else than to one Split of its last axis in equal parts.
    """
    users = [node for node, _ in layer.output.uses()]
    split = users[0] if len(users) == 1 else None
    if split is None or split.op_type != "Split" or layer.output.is_graph_output() or layer.output.shape is None:
        return []
    last = len(layer.output.shape) - 1
    width, count = layer.weight.shape[1], len(split.outputs)
    sizes = [value.shape[last] if value.shape is not None else None for value in split.outputs]
    if split.attributes.get_int("axis", 0) not in (-1, last) or sizes != [width // count] * count:
        return []
    size = width // count
    return [(slice(index * size, (index + 1) * size), value) for index, value in enumerate(split.outputs)]


class SplitQkv(ir.passes.InPlacePass):
    """Gives each part of a float Linear layer that a Split cuts apart a MatMul and an Add of its own.

    The Split would copy the whole, on one thread.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        changed = [_part(model.graph, layer) for layer in linears_in(model.graph)]
        tidy(model)
        return ir.passes.PassResult(model, modified=any(changed))


def _part(graph: ir.Graph, layer: LinearLayer) -> bool:
    parts = qkv_slices(layer) if layer.matmul.op_type == "MatMul" else []
    for index, (columns, output) in enumerate(parts):
        name = free_name(graph, f"{layer.name}.split_{index}")
        weight = add_constant(graph, f"{name}.weight", layer.weight[:, columns].copy())
        nodes = [mark_node(ir.node("MatMul", [layer.input, weight], name=name), Role.SPLIT, layer.of)]
        if layer.bias is not None:
            bias = add_constant(graph, f"{name}.bias", layer.bias[columns].copy())
            nodes.append(ir.node("Add", [nodes[0].outputs[0], bias], name=f"{name}.add"))
        for node in nodes:
            node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = (
                f"{node.name}.output",
                output.shape,
                output.type,
            )
        place = layer.addition or layer.matmul
        ir.convenience.replace_nodes_and_values(graph, place, [], nodes, [output], [nodes[-1].outputs[0]])
    return bool(parts)
