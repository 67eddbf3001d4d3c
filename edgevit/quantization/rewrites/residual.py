"""Residual quantization: multiply what rounding leaves of a Linear layer's input, too; 16 bits where 8 cost most.

Let r(x) be the input x on the grid of its 8-bit scale. Then x W = r(x) W + (x - r(x)) W, whose second product, the
*residual*, has an input no wider than one step, and 8 bits of its own. Both are integer products. There are two kinds
of place where that is worth the second one:

- the first layers, for all tokens: what they add to is still small there, so that noise counts most;
- the token that the head reads, in the last layers: noise in the other tokens averages out, as attention mixes them,
  and this token's does not. It is one row, so that the second product costs next to nothing.

Both products have the same weights.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.graph.editing import add_constant, node_like
from edgevit.graph.linears import LinearLayer, find_linears
from edgevit.graph.node_facts import Role, before_fake_quant, is_marked, layer_of, mark_node, role_of
from edgevit.graph.passes.prune_tokens import forget_tokens
from edgevit.graph.row_wise import TOKEN_AXIS
from edgevit.quantization.plan import LinearQuantization
from edgevit.quantization.rewrites.channel_equalization import comes_from_activation
from edgevit.quantization.rewrites.smoothing_mappings import ValueProducer, find_smoothing_mappings

#: What a rewrite may have put between an activation function and the layer that reads it.
_BETWEEN = (Role.EQUALIZE, Role.SHIFT, Role.PER_TOKEN_SCALE)


def ending_layers(graph: ir.Graph) -> list[LinearLayer]:
    """Return the layers that end an attention or an MLP, in the order in which they run."""
    after_values = {
        consumer.name
        for mapping in find_smoothing_mappings(graph)
        if isinstance(mapping.producer, ValueProducer)
        for consumer in mapping.consumers
    }
    return [layer for layer in find_linears(graph) if layer.name in after_values or ends_mlp(layer)]


def ends_mlp(layer: LinearLayer) -> bool:
    """Say whether ``layer``, and nothing else, reads what an activation function gives, whatever is done to that."""
    value = before_fake_quant(layer.input)
    node = value.producer()
    while node is not None and any(is_marked(node, role, layer.name) for role in _BETWEEN):
        assert node.inputs[0] is not None  # noqa: S101 - all have two
        value, node = node.inputs[0], node.inputs[0].producer()
    return comes_from_activation(value) and all(
        user is layer.matmul or layer_of(user) == layer.name for user in value.consumers()
    )


def sees_token(layer: LinearLayer, token: int) -> bool:
    """Say whether ``layer`` is known to read several tokens (B, N, K), with ``token`` among them."""
    count = _tokens(layer)
    return count is not None and count > 1 and 0 <= token < count


def add_residual_matmul(
    graph: ir.Graph, layer: LinearLayer, quantization: LinearQuantization, token: int | None = None
) -> str:
    """Let ``layer`` read its input on the grid of ``quantization``, and add the product of what that leaves.

    With ``token``, of that token alone; the others' input stays as it is. Returns the name of the second product.
    """
    name, exact, sum_ = layer.name, layer.input, layer.output
    around = None if token is None else _around(graph, layer, token)
    scale = add_constant(graph, f"{name}.grid.scale", np.array(quantization.activation_scale, dtype=np.float32))
    zero_point = add_constant(graph, f"{name}.grid.zero_point", np.asarray(quantization.zero_point()))
    weight = add_constant(graph, f"{name}.residual.weight", layer.weight.copy())
    rows, nodes = exact, []
    if token is not None:
        index = add_constant(graph, f"{name}.token", np.array([token], dtype=np.int64))
        nodes.append(node_like(graph, f"{name}.row", "Gather", [exact, index], exact, axis=TOKEN_AXIS))
        rows = nodes[0].outputs[0]
        forget_tokens(rows)
    rounded = node_like(graph, f"{name}.grid.quantize", "QuantizeLinear", [rows, scale, zero_point], rows)
    rounded.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(quantization.zero_point().dtype))
    grid = node_like(
        graph, f"{name}.grid.dequantize", "DequantizeLinear", [rounded.outputs[0], scale, zero_point], rows
    )
    left = node_like(graph, f"{name}.grid.residual", "Sub", [rows, grid.outputs[0]], rows)
    product = node_like(graph, f"{name}.residual", "MatMul", [left.outputs[0], weight], sum_)
    nodes += [rounded, grid, left, product]
    of_input, of_output = left, product
    if around is not None:
        forget_tokens(product.outputs[0])
        of_input = node_like(graph, f"{name}.grid.placed", "Pad", [left.outputs[0], around], exact)
        of_output = node_like(graph, f"{name}.placed", "Pad", [product.outputs[0], around], sum_)
        nodes += [of_input, of_output]
    on_the_grid = node_like(graph, f"{name}.grid.input", "Sub", [exact, of_input.outputs[0]], exact)
    total = node_like(graph, f"{name}.total", "Add", [sum_, of_output.outputs[0]], sum_)
    for node in nodes:
        mark_node(node, Role.PART, name)
    if around is not None:
        mark_node(of_output, Role.RESIDUAL_PLACED, name)
    mark_node(product, Role.RESIDUAL, name)
    mark_node(on_the_grid, Role.FAKE_QUANT, name)
    mark_node(total, Role.RESIDUAL_SUM, name)
    sum_.replace_all_uses_with(total.outputs[0], replace_graph_outputs=True)
    total.replace_input_with(0, sum_)
    layer.matmul.replace_input_with(0, on_the_grid.outputs[0])
    graph.insert_before(layer.matmul, [*nodes, on_the_grid])
    graph.insert_after(layer.addition or layer.matmul, total)
    return str(product.name)


@dataclass(frozen=True, slots=True)
class Residual:
    """What ``add_residual_matmul`` has added to ``layer``: for all tokens that it sees, or ``of_token``, for one.

    ``name`` is the second product's.
    """

    layer: LinearLayer
    name: str
    total: ir.Node
    of_token: bool


def find_residuals(graph: ir.Graph) -> list[Residual]:
    """Return what ``add_residual_matmul`` has added to ``graph``, in the order in which the layers run."""
    layers = find_linears(graph)
    names = {layer.of: layer.name for layer in layers if role_of(layer.matmul) is Role.RESIDUAL}
    found = []
    for layer in layers:
        total = next(iter(layer.output.consumers()), None)
        if layer.name in names and total is not None and is_marked(total, Role.RESIDUAL_SUM, layer.name):
            added = total.inputs[1].producer() if total.inputs[1] is not None else None
            placed = is_marked(added, Role.RESIDUAL_PLACED, layer.name)
            found.append(Residual(layer, names[layer.name], total, of_token=placed))
    return found


def prune_residuals(graph: ir.Graph, kept: Collection[str] = ()) -> tuple[str, ...]:
    """Leave out what ``add_residual_matmul`` has added to ``graph``, but for the layers whose names are ``kept``.

    Returns the names of the products that are gone. The nodes that nothing reads any more stay: writing the file
    removes them.
    """
    dropped = [residual for residual in find_residuals(graph) if residual.layer.name not in kept]
    for residual in dropped:
        residual.layer.matmul.replace_input_with(0, before_fake_quant(residual.layer.input))
        residual.total.outputs[0].replace_all_uses_with(residual.layer.output, replace_graph_outputs=True)
        graph.remove(residual.total, safe=True)
    return tuple(residual.name for residual in dropped)


def _around(graph: ir.Graph, layer: LinearLayer, token: int) -> ir.Value:
    """Return the constant that makes Pad put zeros around one row, as many as there are other tokens.

    A product with a mask would do, too, but OpenVINO 2026.4 takes that into the layer in front of it, whose one row
    then goes to all tokens.
    """
    pads = np.array([0, token, 0, 0, (_tokens(layer) or 1) - token - 1, 0], dtype=np.int64)
    return add_constant(graph, f"{layer.name}.around", pads)


def _tokens(layer: LinearLayer) -> int | None:
    shape = layer.input.shape
    count = shape[TOKEN_AXIS] if shape is not None and len(shape) == TOKEN_AXIS + 2 else None
    return count if isinstance(count, int) else None
