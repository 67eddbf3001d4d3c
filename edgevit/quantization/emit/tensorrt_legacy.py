"""For TensorRT 8.6 to 10.11: opset 17, float32 types and scales; FP16 and INT8 are flags when it builds."""

from __future__ import annotations

from pathlib import Path

from edgevit.quantization.emit.drop_rests import with_rests, worth_a_kernel
from edgevit.quantization.emit.lower_opset import LowerOpset
from edgevit.quantization.emit.qdq import put_in_place
from edgevit.quantization.emit.rewrite import QuantizedLinear, WeightBits, rewrite, write
from edgevit.quantization.emit.select_tokens import SelectTokens
from edgevit.quantization.linears import open_graph
from edgevit.quantization.plan import QuantizationPlan

OPSET = 17


def emit(model: Path, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` as INT8 for earlier versions of TensorRT."""
    plan.check_scheme("symmetric")
    with with_rests(model, plan, worth_a_kernel) as (base, fewer):
        rewrite(base, fewer, path, _substitute, (SelectTokens(), LowerOpset(OPSET)), weight_bits=weight_bits)


def emit_float32(model: Path, path: Path) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` for earlier versions of TensorRT."""
    with open_graph(model) as onnx_model:
        write(onnx_model, (SelectTokens(), LowerOpset(OPSET)), path)


def _substitute(linear: QuantizedLinear) -> None:
    put_in_place(linear.parts(), linear.dequantize_input())
