"""Multiply in attention in integers: signed symmetric Q/DQ on all that goes into its two products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgevit.errors import BundleError
from edgevit.graph.attention import Attention, find_attentions
from edgevit.quantization.emit.rewrite import rounded_scales
from edgevit.quantization.plan import AttentionPlan
from edgevit.quantization.replace import add_constant

#: Of what softmax gives, which is at most 1.
SOFTMAX_SCALE = 1 / 127


class QuantizeAttention(ir.passes.InPlacePass):
    """Puts Q/DQ on query, key, softmax and value of each attention that ``plans`` name: on all four, or on none.

    Engines that multiply in integers with Q/DQ on some of them are not known, and those that fuse attention stop fusing
    it. Scales are rounded to ``scale_type``. Passes that look for attention must run before: behind this one there is
    none in the form that they know.
    """

    def __init__(self, plans: Sequence[AttentionPlan], scale_type: type[np.float16 | np.float32] = np.float32) -> None:
        super().__init__()
        self._plans = plans
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
        places = {
            "query": (attention.scores, 0, plan.query_scale),
            "key": (attention.scores, 1, plan.key_scale),
            "softmax": (attention.mixed, 0, SOFTMAX_SCALE),
            "value": (attention.mixed, 1, plan.value_scale),
        }
        for operand, (product, index, scale) in places.items():
            rounded = rounded_scales(np.array(scale, dtype=np.float32), self._scale_type)
            _quantize_input(graph, f"{attention.name}.{operand}", product, index, rounded)


def _quantize_input(graph: ir.Graph, name: str, product: ir.Node, index: int, scale: np.ndarray) -> None:
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
