"""What all emitters share: read the float graph, replace what the plan quantizes, write the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from edgevit.errors import BundleError
from edgevit.files import atomic_path
from edgevit.quantization.arithmetic import quantize
from edgevit.quantization.linears import LinearLayer, find_linears, load_graph
from edgevit.quantization.plan import LinearQuantization, QuantizationPlan
from edgevit.quantization.replace import add_constant, replace_layer

_REMEDY = "quantize again with `edgevit quantize`"


@dataclass(frozen=True, slots=True)
class QuantizedLinear:
    """One Linear layer with the constants of its integer form: weight (K, N) int8, scales (N,), bias (N,) or None."""

    graph: ir.Graph
    layer: LinearLayer
    scale: NDArray[np.float32]  # rank 0, as is the zero point: onnxruntime's integer kernels take true scalars only
    zero_point: NDArray[np.uint8 | np.int8]
    weight: NDArray[np.int8]
    weight_scales: NDArray[np.float32]
    bias: NDArray[np.float32] | None

    def constant(self, suffix: str, values: NDArray[np.generic]) -> ir.Value:
        """Register ``values`` in the graph as the layer's constant ``suffix`` and return it."""
        return add_constant(self.graph, f"{self.layer.name}.{suffix}", values)

    def node(self, suffix: str, op_type: str, inputs: list[ir.Value], **attributes: int) -> ir.Node:
        """Return a new node of the layer, not yet in the graph."""
        name = f"{self.layer.name}.{suffix}"
        node = ir.node(op_type, inputs, attributes=attributes, name=name)
        node.outputs[0].name = name
        return node

    def quantized_input(self) -> tuple[ir.Node, ir.Value, ir.Value]:
        """Return the node that quantizes the layer's input, the scale and the zero point."""
        scale = self.constant("input.scale", self.scale)
        zero_point = self.constant("input.zero_point", self.zero_point)
        return self.node("input.quantize", "QuantizeLinear", [self.layer.input, scale, zero_point]), scale, zero_point

    def put_in_place(self, nodes: list[ir.Node]) -> None:
        """Put ``nodes`` in the layer's place; the last one gives its output."""
        replace_layer(self.graph, self.layer, nodes)


def rewrite(model: Path, plan: QuantizationPlan, path: Path, replace: Callable[[QuantizedLinear], None]) -> None:
    """Write to ``path`` the float32 ONNX file ``model`` with ``replace`` applied to each layer that ``plan`` quantizes.

    Raises:
        BundleError: if the plan was made for another model.
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    plan.check_model(model)
    onnx_model = load_graph(model)
    layers = {layer.name: layer for layer in find_linears(onnx_model.graph)}
    for linear in plan.linears:
        layer = layers.get(linear.name)
        if layer is None:
            raise BundleError(f"the plan's '{linear.name}' is not in the model", remedy=_REMEDY)
        if linear.quantization is not None:
            replace(_quantize(onnx_model.graph, layer, linear.quantization))
    onnx_model.graph.sort()
    common.RemoveUnusedNodesPass()(onnx_model)
    with atomic_path(path) as draft:
        ir.save(onnx_model, draft)


def _quantize(graph: ir.Graph, layer: LinearLayer, quantization: LinearQuantization) -> QuantizedLinear:
    if layer.weight.shape[1] != len(quantization.weight_scales):
        raise BundleError(
            f"the plan has {len(quantization.weight_scales)} weight scales for '{layer.name}', "
            f"which has {layer.weight.shape[1]} outputs",
            remedy=_REMEDY,
        )
    scales = np.array(quantization.weight_scales, dtype=np.float32)
    return QuantizedLinear(
        graph=graph,
        layer=layer,
        scale=np.array(quantization.activation_scale, dtype=np.float32),
        zero_point=np.asarray(quantization.zero_point()),
        weight=quantize(layer.weight, scales, np.int8(0)),
        weight_scales=scales,
        bias=_bias(layer, quantization),
    )


def _bias(layer: LinearLayer, quantization: LinearQuantization) -> NDArray[np.float32] | None:
    if not quantization.bias_correction:
        return layer.bias
    if len(quantization.bias_correction) != layer.weight.shape[1]:
        raise BundleError(
            f"the plan corrects {len(quantization.bias_correction)} biases of '{layer.name}', "
            f"which has {layer.weight.shape[1]} outputs",
            remedy=_REMEDY,
        )
    bias = 0 if layer.bias is None else layer.bias
    return (bias + np.array(quantization.bias_correction)).astype(np.float32)
