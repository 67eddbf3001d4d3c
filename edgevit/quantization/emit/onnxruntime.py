"""For onnxruntime: the fastest form on its CPU provider, with operators of its own.

Each Linear layer becomes QuantizeLinear and com.microsoft's MatMulIntegerToFloat, which multiplies in integers,
rescales to float32 and adds the bias in one kernel. It is what onnxruntime's own optimiser makes of Q/DQ around a
MatMul, except that there the bias stays an Add of its own, and that a bias of shape (N,) can make it fuse float MatMul
and Add first and unpack the weights on every run. Written out, nothing is left to the order of fusions.

Attention is one operator, in INT8 and in float32 alike; with an even number of heads, one with the integer product that
gives query, key and value.

onnxruntime's integer convolution, QLinearConv, takes and gives 8 bits: Q/DQ stand before and behind each, unless the
next one reads just that.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgevit.graph.passes.prune_tokens import PruneToClassToken
from edgevit.quantization.emit.convolution import QuantizedConvolution
from edgevit.quantization.emit.dialect import Dialect
from edgevit.quantization.emit.fuse_attention import FuseAttention
from edgevit.quantization.emit.fuse_quantized_attention import FuseQuantizedAttention
from edgevit.quantization.emit.hoist_quantize import HoistQuantizeLinear
from edgevit.quantization.emit.lower_attention import LowerAttention
from edgevit.quantization.emit.qkv_split import SplitQkv
from edgevit.quantization.emit.rewrite import Passes, QuantizedLinear, WeightBits, rewrite
from edgevit.quantization.engine_file import Emitted
from edgevit.quantization.plan import QuantizationPlan

_DOMAIN = "com.microsoft"


def emit(model: ir.Model, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> Emitted:
    """Write the optimized ``model``, which is used up, to ``path`` as INT8 for onnxruntime's CPU provider."""
    passes = (*float32_passes(), FuseQuantizedAttention(), LowerAttention(), HoistQuantizeLinear())
    return rewrite(model, plan, path, _substitute, passes, convolve=_convolve, weight_bits=weight_bits)


def float32_passes() -> Passes:
    """Return what makes a float32 graph the form that onnxruntime's CPU provider runs fastest."""
    return SplitQkv(), FuseAttention(), PruneToClassToken()


def _substitute(linear: QuantizedLinear) -> None:
    linear.graph.opset_imports[_DOMAIN] = 1
    quantized, scale, zero_point = linear.quantize_input()
    for part in linear.split():
        weight = part.weight_constant("weight.int8", part.weight)
        weight_scales = part.weight_constant("weight.scale", part.weight_scales)
        bias = None if part.bias is None else part.constant("bias.float32", part.bias)
        inputs = [quantized, weight, scale, weight_scales, zero_point, None, bias]  # None: the weights' zero point, 0
        part.put_in_place([part.product("MatMulIntegerToFloat", inputs, _DOMAIN)])


def _convolve(convolution: QuantizedConvolution) -> None:
    convolution.dequantize_input()
    convolution.dequantize_weight()
    convolution.dequantize_bias()
    convolution.quantize_output()


DIALECT = Dialect(name="onnxruntime", scheme="asymmetric", emit=emit, float32_passes=float32_passes, convolutions=True)
