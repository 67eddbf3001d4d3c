"""Write attention as one operator of onnxruntime's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgevit.graph.attention import AttentionSubgraph, TurnedAttention, find_attentions, find_turned_attentions
from edgevit.graph.editing import NodeBuilder, add_constant
from edgevit.graph.row_wise import tokens_of
from edgevit.graph.saving import tidy

_DOMAIN = "com.microsoft"

#: The opset that brought Attention, and the first from which a graph is one of that opset as it stands, but for an
#: operator that changed its meaning in between.
OPSET, SAME_SINCE, _CHANGED = 23, 20, "GroupNormalization"


class FuseAttention(ir.passes.InPlacePass):
    """Puts one operator in the place of each attention that is written out.

    Both that there are take query, key and value (B, N, D) as the Linear layers give them, so that no heads are split
    by Reshape and Transpose. The result is float32's, but for the order in which it adds up. Queries and keys that are
    turned or normalised head by head are joined again; a bias of positions goes into com.microsoft's. What is added to
    the scores of merged tokens either takes as a mask or a bias.

    - ONNX's Attention gives every thread a head at a time. That is the fastest where the heads can be shared out
      equally: about three quarters of the other's time for 6 and for 12 heads on two threads, but four thirds for 3
      (``benchmarks/attention_forms.py``).
    - com.microsoft's MultiHeadAttention goes block by block through the cache, and shares out blocks of queries.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        graph = model.graph
        attentions = find_attentions(graph)
        standard = _can_be_standard(model)
        for attention in attentions:
            even = attention.heads % 2 == 0
            node = _attention(graph, attention) if standard and even else _of_microsoft(graph, attention)
            new, old = node.outputs[0], attention.output
            new.shape, new.type = old.shape, old.type
            ir.convenience.replace_nodes_and_values(graph, attention.query_path[-1], [], [node], [old], [new])
            domain, version = (_DOMAIN, 1) if node.domain else ("", OPSET)
            graph.opset_imports[domain] = max(version, graph.opset_imports.get(domain, 0))
        turned = find_turned_attentions(graph)
        for each in turned:
            _replace_turned(graph, each, standard=standard)
        tidy(model)
        return ir.passes.PassResult(model, modified=bool(attentions or turned))


def _replace_turned(graph: ir.Graph, attention: TurnedAttention, *, standard: bool) -> None:
    query, key = (
        _joined(graph, value, f"{attention.name}.{role}", attention.last)
        for role, value in (("query", attention.query), ("key", attention.key))
    )
    name, inputs = f"{attention.name}.attention", [query, key, attention.value]
    if standard and attention.heads % 2 == 0 and attention.bias is None:
        node = _standard(inputs, attention.heads, attention.scale, name)
    else:
        node = multi_head_attention([*inputs, *_bias(graph, attention)], attention.heads, attention.scale, name)
    new, old = node.outputs[0], attention.output
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, attention.last, [], [node], [old], [new])
    domain, version = (_DOMAIN, 1) if node.domain else ("", OPSET)
    graph.opset_imports[domain] = max(version, graph.opset_imports.get(domain, 0))


def _joined(graph: ir.Graph, value: ir.Value, name: str, before: ir.Node) -> ir.Value:
    """Return ``value`` (B, N, h, d) as tokens (B, N, D): what it was made of, where nothing was done to it."""
    producer = value.producer()
    if producer is not None and producer.op_type == "Reshape" and producer.inputs[0] is not None:
        tokens = producer.inputs[0]
        if tokens.shape is not None and len(tokens.shape) == 3:
            return tokens
    assert value.shape is not None  # noqa: S101 - find_turned_attentions asks for it
    batch, count, heads, width = value.shape
    assert isinstance(heads, int)  # noqa: S101
    assert isinstance(width, int)  # noqa: S101
    shape = add_constant(graph, f"{name}.shape", np.array([0, count, heads * width], dtype=np.int64))
    node = ir.node("Reshape", [value, shape], name=f"{name}.joined")
    tokens = node.outputs[0]
    tokens.name, tokens.type, tokens.shape = f"{name}.joined", value.type, ir.Shape([batch, count, heads * width])
    graph.insert_before(before, node)
    return tokens


def _bias(graph: ir.Graph, attention: TurnedAttention) -> list[ir.Value | None]:
    """Return the further inputs of com.microsoft's operator: a bias of positions (1, h, N, N) is the sixth."""
    if attention.bias is None:
        return []
    tensor = ir.convenience.get_const_tensor(attention.bias)
    assert tensor is not None  # noqa: S101 - so is a bias found
    return [None, None, add_constant(graph, f"{attention.name}.bias", np.asarray(tensor.numpy())[None])]


def _can_be_standard(model: ir.Model) -> bool:
    return model.graph.opset_imports.get("", 0) >= SAME_SINCE and all(
        node.op_type != _CHANGED for node in model.graph.all_nodes()
    )


def _attention(graph: ir.Graph, attention: AttentionSubgraph) -> ir.Node:
    inputs = [attention.query, attention.key, attention.value]
    if attention.bias is not None:
        inputs.append(_of_all_queries(graph, attention, attention.bias))
    return _standard(inputs, attention.heads, attention.scale, f"{attention.name}.attention")


def _standard(inputs: Sequence[ir.Value | None], heads: int, scale: float, name: str) -> ir.Node:
    attributes = {"q_num_heads": heads, "kv_num_heads": heads, "scale": scale}
    return ir.node("Attention", inputs, attributes=attributes, name=name)


def _of_microsoft(graph: ir.Graph, attention: AttentionSubgraph) -> ir.Node:
    inputs: list[ir.Value | None] = [attention.query, attention.key, attention.value]
    if attention.bias is not None:
        inputs += [None, None, _of_all_queries(graph, attention, attention.bias)]
    return multi_head_attention(inputs, attention.heads, attention.scale, f"{attention.name}.attention")


def _of_all_queries(graph: ir.Graph, attention: AttentionSubgraph, bias: ir.Value) -> ir.Value:
    """Return ``bias`` (B, 1, 1, N) as both operators take it: (B, 1, n, N), with n queries."""
    queries = tokens_of(attention.query)
    build = NodeBuilder(graph, attention.name)
    shape = build.constant("bias.shape", [1, 1, queries or 1, 1])
    expanded = build.op("Expand", [bias, shape], "bias")
    graph.insert_after(attention.query_path[-1], build.nodes)
    return expanded


def multi_head_attention(inputs: Sequence[ir.Value | None], heads: int, scale: float, name: str | None) -> ir.Node:
    """Return com.microsoft's MultiHeadAttention of query, key and value (B, N, D), not yet in the graph."""
    attributes = {"num_heads": heads, "scale": scale}
    return ir.node("MultiHeadAttention", inputs, attributes=attributes, domain=_DOMAIN, name=name)
