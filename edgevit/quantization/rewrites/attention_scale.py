"""Fold the scale of attention into the layer that makes its query.

softmax(s Q K^T) V with Q = x W + b is softmax(Q' K^T) V with Q' = x (s W) + s b: a multiplication less for each token,
and the form in which TensorRT knows attention whose products are in integers.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.graph.attention import AttentionSubgraph, find_attentions
from edgevit.graph.editing import set_linear
from edgevit.graph.linears import LinearLayer, as_it_is_now, linears_in


def fold_attention_scales(graph: ir.Graph) -> bool:
    """Let the layers that make queries make them scaled; say whether there was any.

    An attention stays as it is if its query comes from anything else than a Linear layer, or is used elsewhere too.
    """
    layers = {layer.output: layer for layer in linears_in(graph)}
    changed = False
    for attention in find_attentions(graph):
        whole = attention.packed() or attention.query
        layer = layers.get(whole)
        if layer is not None and attention.scaling is not None and _is_private(attention.query, whole):
            _fold(graph, attention, layer)
            changed = True
    return changed


def _is_private(*values: ir.Value) -> bool:
    return all(len(value.uses()) == 1 and not value.is_graph_output() for value in values)


def _fold(graph: ir.Graph, attention: AttentionSubgraph, layer: LinearLayer) -> None:
    layer = as_it_is_now(layer)  # another attention may read it too
    outputs = layer.weight.shape[1]
    factors = np.ones(outputs, dtype=np.float32)
    factors[: outputs // 3 if attention.packed() is not None else outputs] = attention.scale
    set_linear(graph, layer, layer.weight * factors, None if layer.bias is None else layer.bias * factors)
    scaling = attention.scaling
    assert scaling is not None  # noqa: S101 - the caller has seen to it
    unscaled = next(value for value in scaling.inputs if value is not None and not _is_constant(value))
    ir.convenience.replace_all_uses_with(scaling.outputs[0], unscaled)
    graph.remove(scaling, safe=True)


def _is_constant(value: ir.Value) -> bool:
    return ir.convenience.get_const_tensor(value) is not None
