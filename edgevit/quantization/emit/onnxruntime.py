"""INT8 for onnxruntime: the fastest form on its CPU provider.

Each Linear layer becomes QuantizeLinear and com.microsoft's MatMulIntegerToFloat, which multiplies in integers,
rescales to float32 and adds the bias in one kernel. It is what onnxruntime's own optimiser makes of Q/DQ around a
MatMul, except that there the bias stays an Add of its own, and that a bias of shape (N,) can make it fuse float MatMul
and Add first and unpack the weights on every run. Written out, nothing is left to the order of fusions.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgevit.quantization.emit.rewrite import QuantizedLinear, rewrite
from edgevit.quantization.plan import QuantizationPlan

_DOMAIN = "com.microsoft"


def emit(model: Path, plan: QuantizationPlan, path: Path) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` as INT8 for onnxruntime's CPU provider.

    Raises:
        BundleError: if the plan was made for another model.
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written.

    """
    rewrite(model, plan, path, _replace)


def _replace(linear: QuantizedLinear) -> None:
    layer = linear.layer
    quantized, scale, zero_point = linear.quantized_input()
    product = ir.node(
        "MatMulIntegerToFloat",
        [
            quantized.outputs[0],
            linear.constant("weight.int8", linear.weight),
            scale,
            linear.constant("weight.scale", linear.weight_scales),
            zero_point,
            None,  # the weights' zero point: 0
            None if linear.bias is None else linear.constant("bias.float32", linear.bias),
        ],
        domain=_DOMAIN,
        name=layer.name,
    )
    linear.put_in_place([quantized, product])
    linear.graph.opset_imports[_DOMAIN] = 1
