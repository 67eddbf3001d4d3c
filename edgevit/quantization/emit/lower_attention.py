"""Take a graph back to the opset that it had before ONNX's Attention, where that is all that asks for a later one."""

from __future__ import annotations

import onnx_ir as ir

from edgevit.quantization.emit.fuse_attention import OPSET, SAME_SINCE, multi_head_attention


class LowerAttention(ir.passes.InPlacePass):
    """Writes Attention of a single query as MultiHeadAttention; with none left, the graph is of an earlier opset again.

    Of one token, which is what behind the last attention a classifier looks at, there is next to nothing to share out
    between threads. Earlier versions of onnxruntime open the file then: QuantizeLinear of opset 23 is known since 1.24.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        graph = model.graph
        attentions = [node for node in graph if node.op_type == "Attention" and not node.domain]
        single = [node for node in attentions if _queries(node) == 1]
        for node in single:
            new = multi_head_attention(
                node.inputs,
                node.attributes.get_int("q_num_heads", 0),
                node.attributes.get_float("scale", 1.0),
                node.name,
            )
            old = node.outputs[0]
            new.outputs[0].shape, new.outputs[0].type = old.shape, old.type
            ir.convenience.replace_nodes_and_values(graph, node, [node], [new], [old], [new.outputs[0]])
            graph.opset_imports[new.domain] = 1
        lowered = len(single) == len(attentions) and graph.opset_imports.get("") == OPSET
        if lowered:
            graph.opset_imports[""] = SAME_SINCE
            for node in graph:
                node.version = None
        return ir.passes.PassResult(model, modified=bool(single) or lowered)


def _queries(attention: ir.Node) -> int | None:
    shape = attention.outputs[0].shape
    count = None if shape is None or len(shape) != 3 else shape[1]
    return count if isinstance(count, int) else None
