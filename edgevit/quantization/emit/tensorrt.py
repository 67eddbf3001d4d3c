"""For TensorRT 10.12 and later: float16 types, signed symmetric Q/DQ with float16 scales, the bias in float.

Precision lives in the types of the file: what has no Q/DQ around it runs in float16, and attention is fused in it. The
model's input and output stay float32. Scales in float16 are what opset 19 brought. TensorRT multiplies query, key and
value in float unless each has a product of its own; it puts the three together again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.quantization.emit.qdq import put_in_place
from edgevit.quantization.emit.rewrite import QuantizedLinear, WeightBits, rewrite
from edgevit.quantization.emit.select_tokens import SelectTokens
from edgevit.quantization.float16 import retype
from edgevit.quantization.plan import QuantizationPlan


def emit(model: Path, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` as INT8 and FP16 for TensorRT."""
    plan.check_scheme("symmetric")
    passes = (SelectTokens(), ToFloat16())
    rewrite(model, plan, path, _substitute, passes, weight_bits=weight_bits, scale_type=np.float16)


class ToFloat16(ir.passes.InPlacePass):
    """Makes float16 of all that is float32, but for the model's inputs and outputs."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change types."""
        common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
        common.ShapeInferencePass()(model)
        retype(model.graph, set())
        return ir.passes.PassResult(model, modified=True)


def _substitute(linear: QuantizedLinear) -> None:
    put_in_place(linear.parts(), linear.dequantize_input())
