"""For OpenVINO: Q/DQ on the input of each Linear layer, per-channel DQ on its weight, both in front of a MatMul.

OpenVINO's low-precision transformations make an integer FullyConnected of that. Only standard ONNX operators.
"""

from __future__ import annotations

from pathlib import Path

from edgevit.quantization.emit.parts import PartLinears
from edgevit.quantization.emit.rewrite import QuantizedLinear, WeightBits, rewrite, write
from edgevit.quantization.emit.select_tokens import SelectTokens
from edgevit.quantization.linears import load_graph
from edgevit.quantization.plan import QuantizationPlan


def emit(model: Path, plan: QuantizationPlan, path: Path, weight_bits: WeightBits) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` as INT8 for OpenVINO."""
    rewrite(model, plan, path, _substitute, (PartLinears(), SelectTokens()), weight_bits=weight_bits)


def emit_float32(model: Path, path: Path) -> None:
    """Write the float32 ONNX file ``model`` to ``path`` in the form that OpenVINO runs fastest."""
    write(load_graph(model), (PartLinears(), SelectTokens()), path)


def _substitute(linear: QuantizedLinear) -> None:
    activation = linear.shifted_input()
    for part in linear.parts():
        weight = part.dequantized_weight()
        nodes = [weight, part.product("MatMul", [activation, weight.outputs[0]])]
        bias = part.unshifted_bias()
        if bias is not None:
            value = part.constant("bias.float32", bias)
            nodes.append(part.node("add_bias", "Add", [nodes[-1].outputs[0], value], part.output.shape))
        part.put_in_place(nodes)
