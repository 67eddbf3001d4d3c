"""Multiply in attention in integers: signed symmetric Q/DQ on both operands of its products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import BundleError
from edgevit.graph.attention import Attention, find_attentions
from edgevit.quantization.emit.rewrite import rounded_scales
from edgevit.quantization.plan import AttentionPlan
from edgevit.quantization.replace import add_constant

#: Query times key, and softmax times value.
Product = Literal["scores", "mixed"]
PRODUCTS: tuple[Product, ...] = ("scores", "mixed")

#: Of what softmax gives, which is at most 1.
SOFTMAX_SCALE = 1 / 127


class QuantizeAttention(ir.passes.InPlacePass):
    """Puts Q/DQ on the operands of ``products`` in each attention that ``plans`` name.

    An engine multiplies in integers only where both operands are. TensorRT fuses attention only where those of both
    products are, or none. Scales are rounded to ``scale_type``. Passes that look for attention must run before: behind
    this one there is none in the form that they know.
    """

    def __init__(
        self,
        plans: Sequence[AttentionPlan],
        products: Sequence[Product] = PRODUCTS,
        scale_type: type[np.float16 | np.float32] = np.float32,
    ) -> None:
        super().__init__()
        self._plans = plans
        self._products = products
        self._scale_type = scale_type

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph.

        Raises:
            BundleError: if an attention that a plan names is not there.

        """
        attentions = {attention.name: attention for attention in find_attentions(model.graph)}
        for plan in self._plans:
            if plan.name not in attentions:
                raise BundleError(
                    f"the plan's attention '{plan.name}' is not in the model",
                    remedy="quantize again with `edgevit quantize`",
                )
            self._quantize(model.graph, attentions[plan.name], plan)
        return ir.passes.PassResult(model, modified=bool(self._plans))

    def _quantize(self, graph: ir.Graph, attention: Attention, plan: AttentionPlan) -> None:
        operands: dict[Product, tuple[ir.Node, dict[str, float]]] = {
            "scores": (attention.scores, {"query": plan.query_scale, "key": plan.key_scale}),
            "mixed": (attention.mixed, {"softmax": SOFTMAX_SCALE, "value": plan.value_scale}),
        }
        for chosen in self._products:
            product, scales = operands[chosen]
            for index, (operand, scale) in enumerate(scales.items()):
                rounded = rounded_scales(np.array(scale, dtype=np.float32), self._scale_type)
                _quantize_input(graph, f"{attention.name}.{operand}", product, index, rounded)


def _quantize_input(graph: ir.Graph, name: str, product: ir.Node, index: int, scale: NDArray[np.float32]) -> None:
    """Put a QuantizeLinear and a DequantizeLinear in front of the input ``index`` of ``product``."""
    value = product.inputs[index]
    assert value is not None  # noqa: S101 - a MatMul has two inputs
    constants = [
        add_constant(graph, f"{name}.scale", scale),
        add_constant(graph, f"{name}.zero_point", np.array(0, dtype=np.int8)),
    ]
    quantize = ir.node("QuantizeLinear", [value, *constants], name=f"{name}.quantize")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *constants], name=f"{name}.dequantize")
    for node, dtype in ((quantize, ir.DataType.INT8), (dequantize, ir.DataType.FLOAT)):
        node.outputs[0].name, node.outputs[0].shape, node.outputs[0].dtype = node.name, value.shape, dtype
    graph.insert_before(product, [quantize, dequantize])
    product.replace_input_with(index, dequantize.outputs[0])
