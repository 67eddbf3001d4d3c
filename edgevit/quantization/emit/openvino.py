"""For OpenVINO: Q/DQ on the input of each Linear layer, per-channel DQ on its weight, both in front of a MatMul.

OpenVINO's low-precision transformations make an integer FullyConnected of that. Only standard ONNX operators. The zero
point of the input is taken out by the bias, not by DequantizeLinear: OpenVINO's kernel without one is faster.

In attention, query and key are multiplied in integers too. Softmax and value are not: most of what softmax gives is
smaller than one step of 8 bits, and on DeiT-tiny KL to float32 rises from 0.0011 to 0.042 with both in integers
(``INTEGER_PRODUCTS`` in benchmarks/results/ablations.md).

Convolutions read integers and give floats: what OpenVINO fuses behind them, activation functions and sums, stays float,
and costs neither time nor accuracy. A Mul in front of one is fused with what is before it, so that wide channels of
its input are divided.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from edgevit.graph.passes.pad_tokens import PadTokens
from edgevit.graph.passes.prune_tokens import PruneToClassToken
from edgevit.quantization.emit.convolution import QuantizedConvolution
from edgevit.quantization.emit.dialect import Dialect
from edgevit.quantization.emit.qdq import bias_nodes, put_in_place
from edgevit.quantization.emit.qkv_split import SplitQkv
from edgevit.quantization.emit.quantize_attention import AttentionMatmul, QuantizeAttention
from edgevit.quantization.emit.rewrite import Passes, QuantizedLinear, WeightBits, rewrite
from edgevit.quantization.engine_file import Emitted
from edgevit.quantization.plan import QuantizationPlan

#: Products of attention that are multiplied in integers: query times key.
INTEGER_PRODUCTS: tuple[AttentionMatmul, ...] = ("scores",)


def emit(model: ir.Model, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> Emitted:
    """Write the optimized ``model``, which is used up, to ``path`` as INT8 for OpenVINO."""
    pad = (PadTokens(),) if DIALECT.name in plan.padded else ()
    passes = (SplitQkv(), PruneToClassToken(), *pad, QuantizeAttention(plan.attentions, INTEGER_PRODUCTS))
    return rewrite(model, plan, path, _substitute, passes, convolve=_convolve, weight_bits=weight_bits)


def float32_passes() -> Passes:
    """Return what makes a float32 graph the form that OpenVINO runs fastest."""
    return SplitQkv(), PruneToClassToken()


def _substitute(linear: QuantizedLinear) -> None:
    put_in_place(linear.split(), linear.input_without_zero_point(), _add_unshifted_bias)


def _add_unshifted_bias(linear: QuantizedLinear, product: ir.Value) -> list[ir.Node]:
    return bias_nodes(replace(linear, bias=linear.bias_without_zero_point()), product)


def _convolve(convolution: QuantizedConvolution) -> None:
    """Let the bias take out the zero point, where no zeros are read beyond the edges: they are not 0 without it."""
    convolution = convolution.equalized()
    zero_point = convolution.convolution.padded
    convolution.dequantize_input(zero_point=zero_point)
    convolution.dequantize_weight()
    convolution.float_bias(zero_point=zero_point)


DIALECT = Dialect(
    name="openvino",
    scheme="asymmetric",
    emit=emit,
    float32_passes=float32_passes,
    convolutions=True,
    pads_tokens=True,
)
