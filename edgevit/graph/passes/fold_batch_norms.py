"""Fold into a Linear layer the BatchNormalization behind it, as LeViT has one behind each.

torch normalises rows: tokens (B, T, N) are flattened to (B * T, N) for it and put back behind it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.graph.editing import add_bias, set_linear
from edgevit.graph.linears import LinearLayer, linears_in
from edgevit.graph.passes.fold_convolutions import batch_norm, fits_float32, only_read_by


class FoldBatchNorms(ir.passes.InPlacePass):
    """Makes one Linear layer of what is one, and drops the Reshapes that were there for the BatchNormalization.

    Shapes of values must be known. Weights are computed in float64.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        changed = False
        for layer in linears_in(model.graph):
            changed |= layer.matmul.op_type == "MatMul" and _fold(model.graph, layer)
        return ir.passes.PassResult(model, modified=changed)


def _fold(graph: ir.Graph, layer: LinearLayer) -> bool:
    width = layer.weight.shape[1]
    rows, norm = layer.output, _only_reader(layer.output)
    while norm is not None and norm.op_type == "Reshape" and norm.inputs[0] is rows and _last(norm.outputs[0]) == width:
        rows, norm = norm.outputs[0], _only_reader(norm.outputs[0])
    if norm is None or norm.op_type != "BatchNormalization" or norm.inputs[0] is not rows:
        return False
    affine = batch_norm(norm, width) if rows.shape is not None and len(rows.shape) == 2 else None
    if affine is None:
        return False
    scale, shift = affine
    weight = layer.weight * scale
    bias = scale * (0 if layer.bias is None else layer.bias) + shift
    if not fits_float32(weight, bias):
        return False
    ir.convenience.replace_all_uses_with(norm.outputs[0], rows, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    set_linear(graph, layer, weight.astype(np.float32), None if layer.bias is None else bias.astype(np.float32))
    output = layer.output if layer.bias is not None else add_bias(graph, layer, bias.astype(np.float32))
    _drop_reshapes(output)
    return True


def _drop_reshapes(output: ir.Value) -> None:
    """Let what reads ``output`` behind Reshapes that only come back to its shape read it itself."""
    value, reader = output, _only_reader(output)
    while reader is not None and reader.op_type == "Reshape" and reader.inputs[0] is value:
        value, reader = reader.outputs[0], _only_reader(reader.outputs[0])
        if not value.is_graph_output() and _same_shape(value, output):
            ir.convenience.replace_all_uses_with(value, output)
            return


def _same_shape(one: ir.Value, other: ir.Value) -> bool:
    """Say whether both have as many axes and the same sizes, known for all but the first, which follows from them."""
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return False
    sizes = list(one.shape)[1:]
    return all(isinstance(size, int) for size in sizes) and sizes == list(other.shape)[1:]


def _last(value: ir.Value) -> int | None:
    size = value.shape[-1] if value.shape is not None and len(value.shape) else None
    return size if isinstance(size, int) else None


def _only_reader(value: ir.Value) -> ir.Node | None:
    consumers = [user for user, _ in value.uses()]
    return consumers[0] if len(consumers) == 1 and only_read_by(value, consumers[0]) else None
