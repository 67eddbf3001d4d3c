"""Write attention as one operator of onnxruntime's."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.graph.attention import AttentionSubgraph, find_attentions

_DOMAIN = "com.microsoft"

#: The opset that brought Attention, and the first from which a graph is one of that opset as it stands, but for an
#: operator that changed its meaning in between.
OPSET, SAME_SINCE, _CHANGED = 23, 20, "GroupNormalization"


class FuseAttention(ir.passes.InPlacePass):
    """Puts one operator in the place of each attention that is written out.

    Both that there are take query, key and value (B, N, D) as the Linear layers give them, so that no heads are split
    by Reshape and Transpose. The result is float32's, but for the order in which it adds up.

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
            node = _attention(attention) if standard and even else _of_microsoft(attention)
            new, old = node.outputs[0], attention.output
            new.shape, new.type = old.shape, old.type
            ir.convenience.replace_nodes_and_values(graph, attention.query_path[-1], [], [node], [old], [new])
            domain, version = (_DOMAIN, 1) if node.domain else ("", OPSET)
            graph.opset_imports[domain] = max(version, graph.opset_imports.get(domain, 0))
        common.RemoveUnusedNodesPass()(model)
        graph.sort()
        return ir.passes.PassResult(model, modified=bool(attentions))


def _can_be_standard(model: ir.Model) -> bool:
    return model.graph.opset_imports.get("", 0) >= SAME_SINCE and all(
        node.op_type != _CHANGED for node in model.graph.all_nodes()
    )


def _attention(attention: AttentionSubgraph) -> ir.Node:
    return ir.node(
        "Attention",
        [attention.query, attention.key, attention.value],
        attributes={"q_num_heads": attention.heads, "kv_num_heads": attention.heads, "scale": attention.scale},
        name=f"{attention.name}.attention",
    )


def _of_microsoft(attention: AttentionSubgraph) -> ir.Node:
    inputs = [attention.query, attention.key, attention.value]
    return multi_head_attention(inputs, attention.heads, attention.scale, f"{attention.name}.attention")


def multi_head_attention(inputs: Sequence[ir.Value | None], heads: int, scale: float, name: str | None) -> ir.Node:
    """Return com.microsoft's MultiHeadAttention of query, key and value (B, N, D), not yet in the graph."""
    attributes = {"num_heads": heads, "scale": scale}
    return ir.node("MultiHeadAttention", inputs, attributes=attributes, domain=_DOMAIN, name=name)
