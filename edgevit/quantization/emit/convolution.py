"""A convolution as DQ of its input and of its weight, and Conv: only standard operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import BundleError
from edgevit.graph.convolutions import Convolution, convolutions_in, fused_output
from edgevit.graph.editing import add_constant, float_constant, free_name
from edgevit.quantization.arithmetic import WEIGHT_LIMIT, quantize_array
from edgevit.quantization.plan import ConvolutionPlan, LinearQuantization, QuantizationPlan
from edgevit.quantization.planning.convolution_plan import of_divided, rows_of

_SEVEN, _SEVEN_BIT_LIMIT = 7, 63
_REMEDY = "quantize again with `edgevit quantize`"


@dataclass(frozen=True, slots=True)
class QuantizedConvolution:
    """One Conv with the constants of its integer form: weight (M, C / groups, ...kernel) int8, scales and bias (M,).

    The weight is of its input divided by ``divisors`` (C,), if there are any.
    """

    graph: ir.Graph
    convolution: Convolution
    plan: ConvolutionPlan
    quantization: LinearQuantization
    weight: NDArray[np.int8]
    weight_scales: NDArray[np.float32]
    bias: NDArray[np.float32]
    weight_bits: int = 8
    divisors: NDArray[np.float32] | None = None

    def equalized(self) -> QuantizedConvolution:
        """Return the convolution of its divided input, if the plan has it; itself, if not.

        Raises:
            BundleError: if the plan was made for another model.
        """
        other = self.plan.equalized
        if other is None:
            return self
        divisors = np.array(other.divisors, dtype=np.float32)
        return _quantize(self.graph, self.convolution, self.plan, other.quantization, self.weight_bits, divisors)

    def dequantize_input(self, *, zero_point: bool = True) -> None:
        """Put Q/DQ in front of the convolution; without ``zero_point`` it reads more by scale times that."""
        scale, zero = np.array(self.quantization.activation_scale, dtype=np.float32), self.quantization.zero_point()
        taken_out = np.asarray(zero if zero_point else np.zeros_like(zero))
        source = self._divided()
        if zero_point and _is_dequantized(source, scale, np.asarray(zero)):  # behind the convolution before
            return
        node = self._pair("input", source, scale, np.asarray(zero), taken_out, self.convolution.node)
        self.convolution.node.replace_input_with(0, node)

    def quantize_output(self) -> None:
        """Put Q/DQ behind what the convolution gives, the ReLU or Clip included that it can take in."""
        value = fused_output(self.convolution)
        scale = np.array(self.plan.output_scale, dtype=np.float32)
        zero = np.asarray(np.uint8(self.plan.output_zero_point))
        after = value.producer()
        assert after is not None  # noqa: S101 - a convolution gives it, or what follows one
        consumers = list(value.uses())
        given = value.is_graph_output()
        if given or _is_quantized_alike(consumers, scale, zero):
            return
        quantized = self._pair("output", value, scale, zero, zero, after, behind=True)
        for user, index in consumers:
            user.replace_input_with(index, quantized)

    def dequantize_weight(self) -> None:
        """Let the convolution read its weight, with one scale for each output, from integers."""
        name, shape = self.convolution.name, ir.Shape(self.weight.shape)
        stored = add_constant(self.graph, f"{name}.weight.int8", self.weight)
        scales = add_constant(self.graph, f"{name}.weight.scale", self.weight_scales)
        node = self._node("weight.dequantize", "DequantizeLinear", [stored, scales], shape, axis=0)
        self.graph.insert_before(self.convolution.node, node)
        self.convolution.node.replace_input_with(1, node.outputs[0])

    def dequantize_bias(self) -> None:
        """Let the convolution read its bias from integers, in units of the products that it is added to."""
        name = self.convolution.name
        scales = (self.weight_scales * np.float32(self.quantization.activation_scale)).astype(np.float32)
        limits = np.iinfo(np.int32)
        integers = np.clip(np.rint(self.bias.astype(np.float64) / scales), limits.min, limits.max).astype(np.int32)
        inputs = [
            add_constant(self.graph, f"{name}.bias.int32", integers),
            add_constant(self.graph, f"{name}.bias.scale", scales),
        ]
        node = self._node("bias.dequantize", "DequantizeLinear", inputs, ir.Shape(self.bias.shape), axis=0)
        self.graph.insert_before(self.convolution.node, node)
        self._set_bias(node.outputs[0])

    def float_bias(self, *, zero_point: bool = True) -> None:
        """Let the convolution add its bias in float; without ``zero_point`` less what that adds to the output."""
        bias = self.bias.astype(np.float64)
        if not zero_point:
            sums = self.weight.reshape(len(self.weight), -1).sum(axis=1, dtype=np.int64)
            shift = self.quantization.activation_scale * self.quantization.activation_zero_point
            bias = bias - shift * sums * self.weight_scales.astype(np.float64)
        self._set_bias(add_constant(self.graph, f"{self.convolution.name}.bias.float32", bias.astype(np.float32)))

    def _divided(self) -> ir.Value:
        """Return the input, each channel divided as the plan says."""
        source = self.convolution.input
        if self.divisors is None:
            return source
        inverse = (1 / self.divisors).reshape(-1, *[1] * (self.weight.ndim - 2)).astype(np.float32)
        constant = add_constant(self.graph, f"{self.convolution.name}.input.inverse_divisors", inverse)
        node = self._node("input.divide", "Mul", [source, constant], source.shape)
        self.graph.insert_before(self.convolution.node, node)
        return node.outputs[0]

    def _set_bias(self, value: ir.Value) -> None:
        if len(self.convolution.node.inputs) < 3:
            self.convolution.node.resize_inputs(3)
        self.convolution.node.replace_input_with(2, value)

    def _pair(
        self,
        what: str,
        source: ir.Value,
        scale: NDArray[np.float32],
        zero: NDArray[np.generic],
        taken_out: NDArray[np.generic],
        place: ir.Node,
        *,
        behind: bool = False,
    ) -> ir.Value:
        """Put QuantizeLinear and DequantizeLinear of ``source`` before or behind ``place``; return what they give."""
        name = self.convolution.name
        constants = [add_constant(self.graph, f"{name}.{what}.scale", scale)]
        constants.append(add_constant(self.graph, f"{name}.{what}.zero_point", zero))
        zero_read = constants[1]
        if taken_out != zero:
            zero_read = add_constant(self.graph, f"{name}.{what}.zero", taken_out)
        stored = self._node(f"{what}.quantize", "QuantizeLinear", [source, *constants], source.shape)
        stored.outputs[0].dtype = ir.DataType.from_numpy(zero.dtype)
        read = self._node(
            f"{what}.dequantize", "DequantizeLinear", [stored.outputs[0], constants[0], zero_read], source.shape
        )
        (self.graph.insert_after if behind else self.graph.insert_before)(place, [stored, read])
        return read.outputs[0]

    def _node(
        self, suffix: str, op_type: str, inputs: list[ir.Value], shape: ir.Shape | None, **attributes: int
    ) -> ir.Node:
        name = free_name(self.graph, f"{self.convolution.name}.{suffix}")
        node = ir.node(op_type, inputs, attributes=attributes, name=name)
        output = node.outputs[0]
        output.name, output.shape, output.dtype = name, shape, ir.DataType.FLOAT
        return node


def convolve_in_integers(
    graph: ir.Graph, plan: QuantizationPlan, substitute: Callable[[QuantizedConvolution], None], weight_bits: int = 8
) -> None:
    """Apply ``substitute`` to each convolution of ``graph`` that ``plan`` quantizes.

    Raises:
        BundleError: if the plan was made for another model.

    """
    there = {each.name: each for each in convolutions_in(graph)}
    for planned in plan.convolutions:
        convolution = there.get(planned.name)
        if convolution is None:
            raise BundleError(f"the plan's '{planned.name}' is not in the model", remedy=_REMEDY)
        if planned.quantization is not None:
            substitute(_quantize(graph, convolution, planned, planned.quantization, weight_bits))


def _quantize(
    graph: ir.Graph,
    convolution: Convolution,
    plan: ConvolutionPlan,
    quantization: LinearQuantization,
    weight_bits: int,
    divisors: NDArray[np.float32] | None = None,
) -> QuantizedConvolution:
    outputs = len(convolution.weight)
    if divisors is not None and len(divisors) != convolution.channels:
        raise BundleError(
            f"the plan divides {len(divisors)} channels of '{plan.name}', which reads {convolution.channels}",
            remedy=_REMEDY,
        )
    if outputs != len(quantization.weight_scales) or len(quantization.bias_correction) not in (0, outputs):
        raise BundleError(
            f"the plan has {len(quantization.weight_scales)} weight scales for '{plan.name}', "
            f"which has {outputs} outputs",
            remedy=_REMEDY,
        )
    scales = np.array(quantization.weight_scales, dtype=np.float32)
    if weight_bits == _SEVEN:
        scales = scales * np.float32(WEIGHT_LIMIT / _SEVEN_BIT_LIMIT)
    integers = quantize_array(rows_of(of_divided(convolution, divisors)), scales, np.int8(0)).T.reshape(
        convolution.weight.shape
    )
    bias = np.zeros(outputs) if convolution.bias is None else convolution.bias.astype(np.float64)
    if quantization.bias_correction:
        bias = bias + np.array(quantization.bias_correction)
    return QuantizedConvolution(
        graph,
        convolution,
        plan,
        quantization,
        np.ascontiguousarray(integers),
        scales,
        bias.astype(np.float32),
        weight_bits,
        divisors,
    )


def _is_dequantized(value: ir.Value, scale: NDArray[np.float32], zero: NDArray[np.generic]) -> bool:
    """Say whether ``value`` comes from integers of that scale and zero point."""
    node = value.producer()
    return node is not None and node.op_type == "DequantizeLinear" and _has(node, scale, zero)


def _has(node: ir.Node, scale: NDArray[np.float32], zero: NDArray[np.generic]) -> bool:
    """Say whether a QuantizeLinear or DequantizeLinear has that scale and zero point."""
    found, point = float_constant(node.inputs[1]), node.inputs[2]
    stored = None if point is None else ir.convenience.get_const_tensor(point)
    return (
        found is not None
        and stored is not None
        and found.ndim == 0
        and bool(found == scale and stored.numpy() == zero and stored.numpy().dtype == zero.dtype)
    )


def _is_quantized_alike(
    consumers: Sequence[tuple[ir.Node, int]], scale: NDArray[np.float32], zero: NDArray[np.generic]
) -> bool:
    """Say whether all that reads a value quantizes it just so already."""
    return bool(consumers) and all(
        user.op_type == "QuantizeLinear" and _has(user, scale, zero) for user, _ in consumers
    )
