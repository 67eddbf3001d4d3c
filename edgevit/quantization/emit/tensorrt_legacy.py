"""For TensorRT 8.6 to 10.11: opset 17, float32 types and scales; FP16 and INT8 are flags when it builds."""

from __future__ import annotations

from pathlib import Path

from edgevit.graph.linears import open_graph
from edgevit.graph.passes.prune_tokens import PruneToClassToken
from edgevit.quantization.emit.dialect import Dialect, LintProfile
from edgevit.quantization.emit.lower_opset import LowerOpset
from edgevit.quantization.emit.prune_residuals import residuals_worth_a_kernel, with_residuals
from edgevit.quantization.emit.qdq import put_in_place
from edgevit.quantization.emit.rewrite import QuantizedLinear, WeightBits, rewrite, write
from edgevit.quantization.plan import QuantizationPlan

OPSET = 17


def emit(model: Path, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` as INT8 for earlier versions of TensorRT."""
    plan.check_scheme("symmetric")
    with with_residuals(model, plan, residuals_worth_a_kernel) as (base, fewer):
        rewrite(base, fewer, path, _substitute, (PruneToClassToken(), LowerOpset(OPSET)), weight_bits=weight_bits)


def emit_float32(model: Path, path: Path) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` for earlier versions of TensorRT."""
    with open_graph(model) as onnx_model:
        write(onnx_model, (PruneToClassToken(), LowerOpset(OPSET)), path)


def _substitute(linear: QuantizedLinear) -> None:
    put_in_place(linear.parts(), linear.dequantize_input())


DIALECT = Dialect(
    name="tensorrt-legacy",
    scheme="symmetric",
    emit=emit,
    emit_float32=emit_float32,
    lint=LintProfile(rules=("split-product", "legacy-scales"), newest_opset=17),
)
