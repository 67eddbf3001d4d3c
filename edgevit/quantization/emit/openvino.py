"""INT8 for OpenVINO: Q/DQ on the input of each Linear layer, per-channel DQ on its weight, both in front of a MatMul.

OpenVINO's low-precision transformations make an integer FullyConnected of that. Only standard ONNX operators.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgevit.quantization.emit.rewrite import QuantizedLinear, rewrite
from edgevit.quantization.plan import QuantizationPlan


def emit(model: Path, plan: QuantizationPlan, path: Path) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` as INT8 for OpenVINO.

    Raises:
        BundleError: if the plan was made for another model.
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written.

    """
    rewrite(model, plan, path, _replace)


def _replace(linear: QuantizedLinear) -> None:
    layer = linear.layer
    quantized, scale, zero_point = linear.quantized_input()
    activation = linear.node("input.dequantize", "DequantizeLinear", [quantized.outputs[0], scale, zero_point])
    weight = linear.node(
        "weight.dequantize",
        "DequantizeLinear",
        [linear.constant("weight.int8", linear.weight), linear.constant("weight.scale", linear.weight_scales)],
        axis=1,
    )
    product = ir.node("MatMul", [activation.outputs[0], weight.outputs[0]], name=layer.name)
    nodes = [quantized, activation, weight, product]
    if linear.bias is not None:
        product.outputs[0].name = f"{layer.name}.product"
        bias = linear.constant("bias.float32", linear.bias)
        nodes.append(linear.node("add_bias", "Add", [product.outputs[0], bias]))
    linear.put_in_place(nodes)
