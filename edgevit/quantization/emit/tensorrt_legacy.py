"""For TensorRT 8.6 to 10.11: opset 17, float32 types and scales; FP16 and INT8 are flags when it builds."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgevit.backends.tensorrt.fusion_limits import unfused_reason
from edgevit.graph.passes.prune_tokens import PruneToClassToken
from edgevit.quantization.emit.dialect import Dialect, LintProfile
from edgevit.quantization.emit.lower_opset import LowerOpset
from edgevit.quantization.emit.prune_residuals import keep_residuals, most_effective_residuals
from edgevit.quantization.emit.qdq import put_in_place
from edgevit.quantization.emit.rewrite import Passes, QuantizedLinear, WeightBits, rewrite
from edgevit.quantization.engine_file import Emitted
from edgevit.quantization.plan import QuantizationPlan

OPSET = 17


def emit(model: ir.Model, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> Emitted:
    """Write the optimized ``model``, which is used up, to ``path`` as INT8 for earlier versions of TensorRT."""
    plan.check_scheme("symmetric")
    fewer = keep_residuals(model, plan, most_effective_residuals(model.graph))
    return rewrite(model, fewer, path, _substitute, float32_passes(), weight_bits=weight_bits)


def float32_passes() -> Passes:
    """Return what makes a float32 graph the form that earlier versions of TensorRT read."""
    return PruneToClassToken(), LowerOpset(OPSET)


def _substitute(linear: QuantizedLinear) -> None:
    put_in_place(linear.split(), linear.dequantize_input())


DIALECT = Dialect(
    name="tensorrt-legacy",
    scheme="symmetric",
    emit=emit,
    float32_passes=float32_passes,
    lint=LintProfile(rules=("split-product", "legacy-scales"), newest_opset=17, unfused_reason=unfused_reason),
)
