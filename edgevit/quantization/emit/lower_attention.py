"""Take a graph back to the opset that it had before ONNX's Attention, where that is all that asks for a later one."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from edgevit.graph.linears import open_graph
from edgevit.graph.saving import SavedModel, save
from edgevit.quantization.emit.fuse_attention import OPSET, SAME_SINCE, multi_head_attention

#: What an Attention has that says the same as MultiHeadAttention: other attributes, such as is_causal, say more.
_ATTRIBUTES = frozenset(("q_num_heads", "kv_num_heads", "scale"))
_QUERY_KEY_VALUE, _RANK = 3, 3


class LowerAttention(ir.passes.InPlacePass):
    """Writes Attention of a single query as MultiHeadAttention; with none left, the graph is of an earlier opset again.

    Of one token, which is what behind the last attention a classifier looks at, there is next to nothing to share out
    between threads. Earlier versions of onnxruntime open the file then: QuantizeLinear of opset 23 is known since 1.24.
    With ``every`` one written so, float32 runs on them too.
    """

    def __init__(self, *, every: bool = False) -> None:
        super().__init__()
        self._every = every

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        graph = model.graph
        attentions = [node for node in graph if node.op_type == "Attention" and not node.domain]
        chosen = [node for node in attentions if _is_plain(node) and (self._every or _queries(node) == 1)]
        for node in chosen:
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
        lowered = graph.opset_imports.get("") == OPSET and all(map(_is_the_same_before, model.graph.all_nodes()))
        if lowered:
            graph.opset_imports[""] = SAME_SINCE
            for node in graph:
                node.version = None
        return ir.passes.PassResult(model, modified=bool(chosen) or lowered)


def lower_attention(path: Path) -> SavedModel:
    """Write the ONNX file at ``path`` anew, with MultiHeadAttention for each Attention; return what it is then.

    Raises:
        GraphError: if it is no valid ONNX model.
        StorageError: if it cannot be written; it is as it was then.

    """
    with open_graph(path) as model:
        LowerAttention(every=True)(model)
        return save(model, path)


def _is_plain(attention: ir.Node) -> bool:
    """Say whether an Attention is what ``FuseAttention`` makes: of query, key and value (B, N, D), with a scale."""
    heads = {attention.attributes.get_int(name, 0) for name in ("q_num_heads", "kv_num_heads")}
    return (
        attention.attributes.keys() == _ATTRIBUTES
        and len(attention.inputs) == _QUERY_KEY_VALUE
        and len(attention.outputs) == 1
        and len(heads) == 1
    )


def _is_the_same_before(node: ir.Node) -> bool:
    """Say whether the operator was there in the earlier opset, with all that it has here."""
    if node.domain:
        return True
    try:
        schema = onnx.defs.get_schema(node.op_type, SAME_SINCE, "")
    except onnx.defs.SchemaError:
        return False
    return node.attributes.keys() <= schema.attributes.keys()


def _queries(attention: ir.Node) -> int | None:
    shape = attention.outputs[0].shape
    count = None if shape is None or len(shape) != _RANK else shape[1]
    return count if isinstance(count, int) else None
