"""Multiply in attention in integers: signed symmetric Q/DQ on both operands of its products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import BundleError
from edgevit.graph.attention import AttentionSubgraph, find_attentions
from edgevit.graph.editing import add_constant
from edgevit.quantization.emit.rewrite import rounded_scales
from edgevit.quantization.plan import AttentionPlan

#: Query times key, and softmax times value.
AttentionMatmul = Literal["scores", "mixed"]
PRODUCTS: tuple[AttentionMatmul, ...] = ("scores", "mixed")

#: Of what softmax gives, which is at most 1.
SOFTMAX_SCALE = 1 / 127


class QdqPlace(NamedTuple):
    """Where Q/DQ go: in front of the input ``position`` of ``node``."""

    node: ir.Node
    position: int


#: Returns the places for query, key and value.
Places = Callable[[AttentionSubgraph], tuple[QdqPlace, QdqPlace, QdqPlace]]


def at_products(attention: AttentionSubgraph) -> tuple[QdqPlace, QdqPlace, QdqPlace]:
    """Return what the products take: heads apart, and the key transposed."""
    return QdqPlace(attention.scores, 0), QdqPlace(attention.scores, 1), QdqPlace(attention.mixed, 1)


def at_tokens(attention: AttentionSubgraph) -> tuple[QdqPlace, QdqPlace, QdqPlace]:
    """Return the first nodes behind the tokens (B, N, D) of query, key and value; the query must come scaled.

    TensorRT then quantizes all three in the kernel that adds their bias, and multiplies them as one.
    """
    query, key, value = at_products(attention)
    return _first(query), _first(key), _first(value)


def _first(place: QdqPlace) -> QdqPlace:
    """Return the Reshape that takes heads apart; the Transpose behind it is what ``place`` sees."""
    transpose = place.node.inputs[place.position]
    assert transpose is not None  # noqa: S101 - so is an attention made, if nothing scales the query
    reshape = transpose.producer().inputs[0].producer()  # type: ignore[union-attr]
    return QdqPlace(reshape, 0)  # type: ignore[arg-type]


class QuantizeAttention(ir.passes.InPlacePass):
    """Puts Q/DQ on the operands of ``products`` in each attention that ``plans`` name.

    An engine multiplies in integers only where both operands are. TensorRT fuses attention only where those of both
    products are, or none. Scales are rounded to ``scale_type``; ``places`` says where Q/DQ go, softmax aside; the type
    of ``zero`` is what they quantize to, and ``share`` times the scales in the plans, which are for INT8, what it asks
    for. Passes that look for attention must run before: behind this one there is none in the form that they know.
    """

    def __init__(
        self,
        plans: Sequence[AttentionPlan],
        products: Sequence[AttentionMatmul] = PRODUCTS,
        scale_type: type[np.float16 | np.float32] = np.float32,
        *,
        places: Places = at_products,
        zero: np.generic = np.int8(0),  # noqa: B008 - it is immutable
        share: float = 1,
    ) -> None:
        super().__init__()
        self._plans = plans
        self._products = products
        self._scale_type = scale_type
        self._places = places
        self._zero = zero
        self._share = share

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

    def _quantize(self, graph: ir.Graph, attention: AttentionSubgraph, plan: AttentionPlan) -> None:
        query, key, value = self._places(attention)
        operands: dict[AttentionMatmul, dict[str, tuple[QdqPlace, float]]] = {
            "scores": {"query": (query, plan.query_scale), "key": (key, plan.key_scale)},
            "mixed": {"softmax": (QdqPlace(attention.mixed, 0), SOFTMAX_SCALE), "value": (value, plan.value_scale)},
        }
        for product in self._products:
            for operand, (place, scale) in operands[product].items():
                rounded = rounded_scales(np.array(scale * self._share, dtype=np.float32), self._scale_type)
                _quantize_input(graph, f"{attention.name}.{operand}", place, rounded, self._zero)


def _quantize_input(graph: ir.Graph, name: str, place: QdqPlace, scale: NDArray[np.float32], zero: np.generic) -> None:
    """Put a QuantizeLinear and a DequantizeLinear in front of ``place``."""
    value = place.node.inputs[place.position]
    assert value is not None  # noqa: S101 - there is a place for what is there
    constants = [
        add_constant(graph, f"{name}.scale", scale),
        add_constant(graph, f"{name}.zero_point", np.asarray(zero)),
    ]
    quantize = ir.node("QuantizeLinear", [value, *constants], name=f"{name}.quantize")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *constants], name=f"{name}.dequantize")
    for node, dtype in ((quantize, ir.DataType.from_numpy(zero.dtype)), (dequantize, ir.DataType.FLOAT)):
        node.outputs[0].name, node.outputs[0].shape, node.outputs[0].dtype = node.name, value.shape, dtype
    graph.insert_before(place.node, [quantize, dequantize])
    place.node.replace_input_with(place.position, dequantize.outputs[0])
