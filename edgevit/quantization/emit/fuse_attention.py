"""Write attention as one operator of onnxruntime's."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.graph.attention import find_attentions

_DOMAIN = "com.microsoft"


class FuseAttention(ir.passes.InPlacePass):
    """Puts com.microsoft's MultiHeadAttention in the place of each attention that is written out.

    It takes query, key and value (B, N, D) as the Linear layers give them: no heads are split by Reshape and Transpose,
    and the products and the softmax between them go block by block through the cache. The result is float32's, but for
    the order in which it adds up.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        graph = model.graph
        attentions = find_attentions(graph)
        for attention in attentions:
            node = ir.node(
                "MultiHeadAttention",
                [attention.query, attention.key, attention.value],
                attributes={"num_heads": attention.heads, "scale": attention.scale},
                domain=_DOMAIN,
                name=f"{attention.name}.attention",
            )
            new, old = node.outputs[0], attention.output
            new.shape, new.type = old.shape, old.type
            ir.convenience.replace_nodes_and_values(graph, attention.query_path[-1], [], [node], [old], [new])
            graph.opset_imports[_DOMAIN] = 1
        common.RemoveUnusedNodesPass()(model)
        graph.sort()
        return ir.passes.PassResult(model, modified=bool(attentions))
