"""Write each Gemm with a constant weight as MatMul and Add."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.graph.editing import add_constant, free_name
from edgevit.graph.linears import LinearLayer, linears_in


class GemmToLinear(ir.passes.InPlacePass):
    """Puts MatMul, with the Gemm's name, and Add in the place of each Gemm that is a Linear layer.

    It is the form of the exporter of EdgeViT, which takes values of any number of axes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        layers = [layer for layer in linears_in(model.graph) if layer.matmul.op_type == "Gemm"]
        for layer in layers:
            _replace(model.graph, layer)
        return ir.passes.PassResult(model, modified=bool(layers))


def _replace(graph: ir.Graph, layer: LinearLayer) -> None:
    gemm, output = layer.matmul, layer.output
    weight = add_constant(graph, f"{layer.name}.weight", np.ascontiguousarray(layer.weight))
    nodes = [ir.node("MatMul", [layer.input, weight], name=gemm.name)]
    if layer.bias is not None:
        bias = add_constant(graph, f"{layer.name}.bias", np.ascontiguousarray(layer.bias))
        nodes[0].outputs[0].name = free_name(graph, f"{layer.name}.product")
        nodes.append(ir.node("Add", [nodes[0].outputs[0], bias], name=free_name(graph, f"{layer.name}.add_bias")))
    for node in nodes:
        node.outputs[0].shape, node.outputs[0].type = output.shape, output.type
    ir.convenience.replace_nodes_and_values(graph, gemm, [gemm], nodes, [output], [nodes[-1].outputs[0]])
