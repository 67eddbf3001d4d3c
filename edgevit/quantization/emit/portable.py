"""One file for many engines: standard ONNX operators, signed symmetric Q/DQ, nothing that TensorRT's parser rejects.

onnxruntime and OpenVINO run its Linear layers on integer kernels. For onnxruntime the bias must not be (N,): it would
fuse the float MatMul with the Add first, and unpack the weights on every run. Query, key and value stay one product:
where three take the same quantized input, onnxruntime does not always find them. TensorRT then multiplies these in
float; its own dialect is better there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgevit.backends.tensorrt.fusion_limits import unfused_reason
from edgevit.graph.passes.prune_tokens import PruneToClassToken
from edgevit.quantization.emit.dialect import Dialect, LintProfile
from edgevit.quantization.emit.qdq import put_in_place
from edgevit.quantization.emit.rewrite import QuantizedLinear, WeightBits, rewrite
from edgevit.quantization.engine_file import Emitted
from edgevit.quantization.plan import QuantizationPlan

_UNFUSED = 3  # dimensions of a bias that onnxruntime leaves an Add of its own


def emit(model: ir.Model, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> Emitted:
    """Write the optimized ``model``, which is used up, to ``path`` as INT8 that many engines take."""
    plan.check_scheme("symmetric")
    return rewrite(model, plan, path, _substitute, (PruneToClassToken(),), weight_bits=weight_bits)


def _substitute(linear: QuantizedLinear) -> None:
    put_in_place([linear], linear.dequantize_input(), _add_bias)


def _add_bias(linear: QuantizedLinear, product: ir.Value) -> list[ir.Node]:
    if linear.bias is None:
        return []
    shape = linear.output.shape
    bias = linear.constant("bias.float32", linear.bias.reshape(1, 1, -1))
    if shape is None or len(shape) >= _UNFUSED:
        return [linear.node("add_bias", "Add", [product, bias], shape)]
    # Of rank 2, as the head's output is: the bias makes it (1, B, N), and the first axis is dropped again.
    added = linear.node("add_bias", "Add", [product, bias], ir.Shape([1, *shape]))
    axis = linear.constant("bias.axis", np.array([0], dtype=np.int64))
    return [added, linear.node("squeeze", "Squeeze", [added.outputs[0], axis], shape)]


DIALECT = Dialect(name="portable", scheme="symmetric", emit=emit, lint=LintProfile(unfused_reason=unfused_reason))
