"""What all emitters share: read the float graph, replace what the plan quantizes, write the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import BundleError
from edgevit.graph.editing import add_constant, free_name, set_linear
from edgevit.graph.linears import LinearLayer, find_linears
from edgevit.graph.node_facts import Role, before_fake_quant, mark_node
from edgevit.quantization.arithmetic import WEIGHT_LIMIT, quantize_array
from edgevit.quantization.emit.convolution import QuantizedConvolution, convolve_in_integers
from edgevit.quantization.emit.qkv_split import qkv_slices
from edgevit.quantization.engine_file import Emitted, save_for_engine
from edgevit.quantization.plan import LinearQuantization, QuantizationPlan

#: What is applied to a graph, in this order, before it is written.
Passes = tuple[ir.passes.InPlacePass, ...]

#: x86 processors without VNNI add pairs of products in 16 bits, where two of 8-bit weights can overflow.
WeightBits = Literal[7, 8]

_SEVEN, _SEVEN_BIT_LIMIT = 7, 63
_REMEDY = "quantize again with `edgevit quantize`"


@dataclass(frozen=True, slots=True)
class QuantizedLinear:
    """One Linear layer with the constants of its integer form: weight (K, N) int8, scales (N,), bias (N,) or None.

    Or a part of a layer, some of its columns; ``name`` and ``output`` are then the part's. Or its form in FP8, with
    zero point and weight in that type, see ``float8``.
    """

    graph: ir.Graph
    layer: LinearLayer
    name: str
    output: ir.Value
    scale: NDArray[np.float32]  # rank 0, as is the zero point: onnxruntime's integer kernels take true scalars only
    zero_point: NDArray[Any]
    weight: NDArray[Any]
    weight_scales: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    role: Role = Role.PART

    def split(self) -> list[QuantizedLinear]:
        """Return the parts that a Split behind the layer cuts it into, or the layer itself where there is none."""
        parts = [
            replace(
                self,
                name=free_name(self.graph, f"{self.name}.split_{index}"),
                role=Role.SPLIT,
                output=output,
                weight=self.weight[:, columns].copy(),
                weight_scales=self.weight_scales[columns],
                bias=None if self.bias is None else self.bias[columns],
            )
            for index, (columns, output) in enumerate(qkv_slices(self.layer))
        ]
        return parts or [self]

    def constant(self, suffix: str, values: NDArray[np.generic]) -> ir.Value:
        """Register ``values`` in the graph as the constant ``suffix`` and return it."""
        return add_constant(self.graph, f"{self.name}.{suffix}", values)

    def weight_constant(self, suffix: str, values: NDArray[np.generic]) -> ir.Value:
        """Do so for a weight or its scales, which a layer's residual product shares with the layer."""
        there = self.graph.initializers.get(f"{self.layer.of}.{suffix}")
        if there is not None and there.const_value is not None and np.array_equal(there.const_value.numpy(), values):
            return there
        return self.constant(suffix, values)

    def node(
        self, suffix: str, op_type: str, inputs: list[ir.Value], shape: ir.Shape | None, **attributes: int
    ) -> ir.Node:
        """Return a new node, not yet in the graph, with a float32 output of ``shape``."""
        name = free_name(self.graph, f"{self.name}.{suffix}")
        node = ir.node(op_type, inputs, attributes=attributes, name=name)
        output = node.outputs[0]
        output.name, output.shape, output.dtype = name, shape, ir.DataType.FLOAT
        return node

    def quantize_input(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Put a QuantizeLinear in front of the layer; return what it gives, the scale and the zero point."""
        scale, zero_point = self.constant("input.scale", self.scale), self.constant("input.zero_point", self.zero_point)
        source = before_fake_quant(self.layer.input)
        node = self.node("input.quantize", "QuantizeLinear", [source, scale, zero_point], source.shape)
        node.outputs[0].dtype = ir.DataType.from_numpy(self.zero_point.dtype)
        self.graph.insert_before(self.layer.matmul, node)
        return node.outputs[0], scale, zero_point

    def dequantize_input(self) -> ir.Value:
        """Put a QuantizeLinear and a DequantizeLinear in front of the layer; return what they give."""
        node = self.node("input.dequantize", "DequantizeLinear", list(self.quantize_input()), self.layer.input.shape)
        self.graph.insert_before(self.layer.matmul, node)
        return node.outputs[0]

    def input_without_zero_point(self) -> ir.Value:
        """Put Q/DQ in front of the layer that leave the zero point in; ``bias_without_zero_point`` takes it out again.

        What is given is the input plus scale times zero point: kernels that multiply without a zero point are faster.
        """
        quantized, scale, _ = self.quantize_input()
        zero = self.constant("input.zero", np.zeros_like(self.zero_point))
        node = self.node("input.dequantize", "DequantizeLinear", [quantized, scale, zero], self.layer.input.shape)
        self.graph.insert_before(self.layer.matmul, node)
        return node.outputs[0]

    def bias_without_zero_point(self) -> NDArray[np.float32] | None:
        """Return the bias less what ``input_without_zero_point`` adds to the output; None if nothing is left."""
        if self.zero_point == 0:
            return self.bias
        sums = self.weight.sum(axis=0, dtype=np.int64) * self.weight_scales.astype(np.float64)
        shift = float(self.scale) * float(self.zero_point) * sums
        bias: NDArray[np.float32] = ((0 if self.bias is None else self.bias) - shift).astype(np.float32)
        return bias

    def dequantized_weight(self) -> ir.Node:
        """Return the node that gives the weight (K, N) as float, one scale per column."""
        weight = self.weight_constant(f"weight.{self.weight.dtype.name}", self.weight)
        scales = self.weight_constant("weight.scale", self.weight_scales)
        shape = ir.Shape(self.weight.shape)
        return self.node("weight.dequantize", "DequantizeLinear", [weight, scales], shape, axis=1)

    def product(self, op_type: str, inputs: list[ir.Value | None], domain: str = "") -> ir.Node:
        """Return the node that multiplies, not yet in the graph, with the layer's name and an output of its shape."""
        node = mark_node(ir.node(op_type, inputs, domain=domain, name=self.name), self.role, self.layer.of)
        output = node.outputs[0]
        output.name = free_name(self.graph, f"{self.name}.product")
        output.shape, output.type = self.output.shape, self.output.type
        return node

    def put_in_place(self, nodes: list[ir.Node]) -> None:
        """Put ``nodes`` in the place of what gave the output before; the last one gives it now."""
        new = nodes[-1].outputs[0]
        new.shape, new.type = self.output.shape, self.output.type
        place = self.layer.addition or self.layer.matmul
        ir.convenience.replace_nodes_and_values(self.graph, place, [], nodes, [self.output], [new])


def rewrite(
    model: ir.Model,
    plan: QuantizationPlan,
    path: Path,
    substitute: Callable[[QuantizedLinear], None],
    passes: Passes = (),
    *,
    convolve: Callable[[QuantizedConvolution], None] | None = None,
    weight_bits: WeightBits = 8,
    scale_type: type[np.float16 | np.float32] = np.float32,
) -> Emitted:
    """Write the optimized ``model`` to ``path``, with ``substitute`` applied to each layer that is quantized.

    ``convolve`` is applied to each convolution that is; without it they stay float. ``passes`` are applied to the graph
    after that. With 7 ``weight_bits``, weights take half of the range of 8. Scales are rounded to ``scale_type`` before
    anything is divided by them, so that it may hold them in the file.

    Raises:
        BundleError: if the plan was made for another model.
        GraphError: if the model has no Linear layers.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    layers = {layer.name: layer for layer in find_linears(model.graph)}
    for linear in sorted(plan.linears, key=lambda each: each.layer is not None):  # residual products last
        layer = layers.pop(linear.name, None)
        if layer is None:
            raise BundleError(f"the plan's '{linear.name}' is not in the model", remedy=_REMEDY)
        if linear.quantization is not None:
            substitute(_quantize(model.graph, layer, linear.quantization, weight_bits, scale_type))
        else:  # each layer has a weight of its own then, by which engines tell of its kernel
            set_linear(model.graph, layer, layer.weight, layer.bias)
    if convolve is not None:
        convolve_in_integers(model.graph, plan, convolve, weight_bits)
    return save_for_engine(model, path, passes)


def _quantize(
    graph: ir.Graph,
    layer: LinearLayer,
    quantization: LinearQuantization,
    weight_bits: WeightBits,
    scale_type: type[np.float16 | np.float32],
) -> QuantizedLinear:
    if layer.weight.shape[1] != len(quantization.weight_scales):
        raise BundleError(
            f"the plan has {len(quantization.weight_scales)} weight scales for '{layer.name}', "
            f"which has {layer.weight.shape[1]} outputs",
            remedy=_REMEDY,
        )
    scales = np.array(quantization.weight_scales, dtype=np.float32)
    if weight_bits == _SEVEN:
        scales = scales * np.float32(WEIGHT_LIMIT / _SEVEN_BIT_LIMIT)
    scales = rounded_scales(scales, scale_type)
    return QuantizedLinear(
        graph=graph,
        layer=layer,
        name=layer.name,
        output=layer.output,
        scale=rounded_scales(np.array(quantization.activation_scale, dtype=np.float32), scale_type),
        zero_point=np.asarray(quantization.zero_point()),
        weight=quantize_array(layer.weight, scales, np.int8(0)),
        weight_scales=scales,
        bias=_bias(layer, quantization),
    )


def rounded_scales(scales: NDArray[np.float32], kind: type[np.float16 | np.float32]) -> NDArray[np.float32]:
    """Return ``scales`` as ``kind`` holds them; those too small for it to hold precisely become its smallest."""
    rounded: NDArray[np.float32] = np.maximum(scales.astype(kind), np.finfo(kind).tiny).astype(np.float32)
    return rounded


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
