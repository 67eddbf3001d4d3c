"""Compute only the token that the head looks at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from edgevit.graph.attention import find_attentions
from edgevit.graph.editing import add_constant
from edgevit.graph.row_wise import BIAS, TOKEN_AXIS, bias_of_keys, is_row_wise, row_inputs, same_for_all, tokens_of


class PruneToClassToken(ir.passes.InPlacePass):
    """Moves the choice of one token, (B, N, D) -> (B, D), from behind the last block to the front of what it needs.

    A classifier that looks at the class token alone has no use for the others after the last attention: the projection,
    the MLP and the norms behind it are then computed for one token instead of all, and so is the last attention's
    query. Names stay as they are, and so does the result, but for the order in which kernels add up.

    Values must have shapes; a graph without is left as it is, as is one that looks at more than one token.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        changed = [_move(model.graph, node) for node in list(model.graph) if _pools_token(node)]
        return ir.passes.PassResult(model, modified=any(changed))


class PooledToken(NamedTuple):
    """The token (B, D) that is chosen of (B, N, D), by its number, and N."""

    number: int
    among: int


def pooled_token(graph: ir.Graph) -> PooledToken | None:
    """Return which token is chosen; None where there is no choice, or there are several, or several outputs.

    Of several outputs others may read all tokens.
    """
    if len(graph.outputs) > 1:
        return None
    choices = [(_index(node), tokens_of(node.inputs[0])) for node in graph if _pools_token(node)]
    tokens = {PooledToken(index, count) for index, count in choices if index is not None and count is not None}
    return tokens.pop() if len(tokens) == 1 else None


def _pools_token(node: ir.Node) -> bool:
    return (
        node.op_type == "Gather"
        and node.attributes.get_int("axis", 0) == TOKEN_AXIS
        and _index(node) is not None
        and (tokens_of(node.inputs[0]) or 0) > 1
    )


def nodes_of_pooled_token(graph: ir.Graph) -> frozenset[ir.Node]:
    """Return the nodes of ``graph`` that see a single token of several once ``PruneToClassToken`` was applied."""
    found = (_behind_choice(graph, node)[0] for node in graph if _pools_token(node))
    return frozenset(node for single in found for node in single)


def _move(graph: ir.Graph, choice: ir.Node) -> bool:
    """Move ``choice`` as far to the front as each token is computed by itself; say whether it moved at all."""
    single, query_paths = _behind_choice(graph, choice)
    if len(single) == 1:
        return False
    for path in query_paths:
        _shorten(graph, path)
    for node in single:
        _shorten_bias(node)
    _cut(graph, choice, single)
    return True


def _behind_choice(
    graph: ir.Graph, choice: ir.Node
) -> tuple[dict[ir.Node, tuple[int, ...]], list[tuple[ir.Node, ...]]]:
    """Return the nodes that are to see one token, with the inputs at which they do, and the ways of queries there."""
    attentions = {attention.output: attention for attention in find_attentions(graph)}
    single: dict[ir.Node, tuple[int, ...]] = {choice: (0,)}
    query_paths = []
    for node in reversed(graph):
        if node in single or not _serves_only(node, single):
            continue
        attention = attentions.get(node.outputs[0])
        if attention is not None:
            query_paths.append(attention.query_path)
            single |= dict.fromkeys(attention.query_path, ())
            single[attention.query_path[0]] = (0,)
        elif is_row_wise(node):
            single[node] = row_inputs(node)
    return single, query_paths


def _serves_only(node: ir.Node, single: dict[ir.Node, tuple[int, ...]]) -> bool:
    """Say whether all that ``node`` computes goes to nodes that are to see one token."""
    if len(node.outputs) != 1 or node.outputs[0].is_graph_output():
        return False
    uses = node.outputs[0].uses()
    return bool(uses) and all(user in single and index in single[user] for user, index in uses)


def _index(choice: ir.Node) -> int | None:
    value = choice.inputs[1]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.size != 1 else int(tensor.numpy().item())


def _shorten(graph: ir.Graph, path: tuple[ir.Node, ...]) -> None:
    """Give the Reshapes on an attention's way from query to output one token."""
    for node in path:
        if node.op_type == "Reshape" and node.inputs[1] is not None:
            shape = np.array(ir.convenience.get_const_tensor(node.inputs[1]).numpy())  # type: ignore[union-attr]
            shape[TOKEN_AXIS] = 1
            node.replace_input_with(1, add_constant(graph, f"{node.name}.shape", shape))


def _shorten_bias(attention: ir.Node) -> None:
    """Let a fused attention add what is the same for all queries as it is: to those of one token."""
    bias = bias_of_keys(attention)
    if bias is not None:
        attention.replace_input_with(BIAS[attention.op_type], bias)


def _cut(graph: ir.Graph, choice: ir.Node, single: dict[ir.Node, tuple[int, ...]]) -> None:
    """Choose the token wherever tokens flow into ``single`` nodes, and leave ``choice`` the only one there is."""
    index = _index(choice)
    first = add_constant(graph, f"{choice.name}.token", np.array([index], dtype=np.int64))
    chosen: dict[ir.Value, ir.Value] = {}
    for node, positions in single.items():
        for position in positions:
            value = node.inputs[position]
            if value is None or value.producer() in single or tokens_of(value) is None or same_for_all(value):
                continue
            if value not in chosen:
                chosen[value] = _gather(graph, value, first)
            node.replace_input_with(position, chosen[value])
    for node in single:
        if node is not choice:
            forget_tokens(node.outputs[0])
    assert choice.inputs[1] is not None and choice.inputs[1].shape is not None  # noqa: S101, PT018 - a constant
    zero = np.zeros(choice.inputs[1].shape.numpy(), dtype=np.int64)
    choice.replace_input_with(1, add_constant(graph, f"{choice.name}.only", zero))


def _gather(graph: ir.Graph, value: ir.Value, index: ir.Value) -> ir.Value:
    """Return one token of ``value``; of what is dequantized, the integers' token, dequantized by a node of its own.

    Engines look for DequantizeLinear right in front of a product. Of FP8, which Gather does not take, the token is
    quantized by a node of its own too.
    """
    producer = value.producer()
    if producer is not None and _comes_before(producer) and producer.inputs[0] is not None:
        token = _gather(graph, producer.inputs[0], index)
        clone = ir.node(producer.op_type, [token, *producer.inputs[1:]], name=f"{producer.name}.token")
        clone.outputs[0].name, clone.outputs[0].type = f"{value.name}.token", value.type
        clone.outputs[0].shape = token.shape
        graph.insert_after(producer, clone)
        return clone.outputs[0]
    node = ir.node("Gather", [value, index], attributes={"axis": TOKEN_AXIS}, name=f"{value.name}.token")
    taken = node.outputs[0]
    taken.name, taken.type, taken.shape = f"{value.name}.token", value.type, value.shape
    forget_tokens(taken)
    if producer is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(producer, node)
    return taken


def _comes_before(node: ir.Node) -> bool:
    """Say whether the token is taken in front of ``node``, not of what it gives."""
    float8 = node.op_type == "QuantizeLinear" and node.outputs[0].dtype == ir.DataType.FLOAT8E4M3FN
    return float8 or node.op_type == "DequantizeLinear"


def forget_tokens(value: ir.Value) -> None:
    """Note that ``value`` has one token now, or nothing where it is not (B, N, D)."""
    shape = value.shape
    value.shape = ir.Shape([shape[0], 1, shape[2]]) if shape is not None and len(shape) == 3 else None
