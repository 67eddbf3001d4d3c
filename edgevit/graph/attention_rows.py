"""Let an attention have another number of tokens, and add a bias of keys to its scores."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.graph.attention import AttentionSubgraph
from edgevit.graph.editing import NodeBuilder, add_constant
from edgevit.graph.row_wise import TOKEN_AXIS

_QUERY_AXIS, _KEY_AXIS = 2, 3  # of scores (B, h, n, n)


def set_tokens(graph: ir.Graph, attention: AttentionSubgraph, *, queries: int | None, keys: int) -> None:
    """Let ``attention`` have so many ``queries`` and ``keys``; with None it has as many queries as before."""
    scores = (attention.scores, attention.softmax, *_added(attention))
    for node in attention.query_path:
        if queries is not None:
            _set_rows(graph, node, queries)
        if node in scores:
            output = node.outputs[0]
            output.shape = resized_shape(output.shape, {_KEY_AXIS: keys})
    for node in attention.other_paths:
        _set_rows(graph, node, keys)


def add_to_scores(graph: ir.Graph, attention: AttentionSubgraph, bias: ir.Value, name: str) -> None:
    """Add ``bias`` (B, 1, 1, N) to the scores of ``attention``, which has none yet."""
    build = NodeBuilder(graph, attention.name)
    product = attention.scores.outputs[0]
    biased = build.op("Add", [product, bias], name)
    biased.shape, biased.type = product.shape, product.type
    graph.insert_before(attention.softmax, build.nodes)
    attention.softmax.replace_input_with(0, biased)


def resized_shape(shape: ir.Shape | None, sizes: dict[int, int]) -> ir.Shape | None:
    """Return ``shape`` with other ``sizes`` of some axes; None stays None."""
    return None if shape is None else ir.Shape([sizes.get(axis, size) for axis, size in enumerate(shape)])


def _added(attention: AttentionSubgraph) -> tuple[ir.Node, ...]:
    node = attention.softmax.inputs[0].producer() if attention.bias is not None else None  # type: ignore[union-attr]
    return () if node is None else (node,)


def _set_rows(graph: ir.Graph, node: ir.Node, count: int) -> None:
    """Let ``node``, on the way of a query, a key or a value, give ``count`` of them."""
    (output,) = node.outputs
    match node.op_type:
        case "Reshape":
            _reshape(graph, node, count)
            output.shape = resized_shape(output.shape, {TOKEN_AXIS: count})
        case "Transpose":
            source = None if node.inputs[0] is None else node.inputs[0].shape
            perm = node.attributes.get_ints("perm", ())
            output.shape = None if source is None else ir.Shape([source[axis] for axis in perm])
        case _:  # (B, h, n, d), or (B, h, n, n)
            output.shape = resized_shape(output.shape, {_QUERY_AXIS: count})


def _reshape(graph: ir.Graph, node: ir.Node, count: int) -> None:
    tensor = None if node.inputs[1] is None else ir.convenience.get_const_tensor(node.inputs[1])
    assert tensor is not None  # noqa: S101 - so is an attention found
    shape = np.array(tensor.numpy())
    shape[TOKEN_AXIS] = count
    node.replace_input_with(1, add_constant(graph, f"{node.name}.shape", shape))
