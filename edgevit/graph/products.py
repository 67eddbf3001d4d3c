"""Which nodes of a graph multiply by a stored weight, and which Linear layer each computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgevit.graph.node_facts import Product, layer_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgevit.graph.protocols import Node, ValueT

#: Operators that multiply by a weight in integers, with the position of the weight among their inputs.
INTEGER = {
    "DynamicQuantizeMatMul": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "QAttention": 1,
    "QGemm": 3,
    "QLinearMatMul": 3,
}
#: The same for those that do it in floating point.
_FLOAT = {"Attention": 1, "FusedGemm": 1, "FusedMatMul": 1, "Gemm": 1, "MatMul": 1, "MatMulNBits": 1}
_WEIGHT_INPUT = {**INTEGER, **_FLOAT}
BLOCKS = "MatMulNBits"  # its weight has three axes

#: Operators between a stored weight and the product that uses it.
_PREPARATION = ("Cast", "DequantizeLinear", "Identity", "Reshape", "Transpose")


def products_in(graph: ir.Graph) -> list[Product]:
    """Return the nodes of ``graph`` that multiply by a stored weight, with the layers that they compute."""
    return [each for node in graph if (each := product_of(node)) is not None]


def product_of(node: ir.Node) -> Product | None:
    """Return what ``node`` multiplies by, with the layer that it computes; None if it is no product with a weight."""
    weight = weight_of(node)
    if weight is None:
        return None
    name = node.name or str(node.outputs[0].name)
    return Product(layer=layer_of(node) or name, node=name, weight=str(weight.name))


def weight_of(node: Node[ValueT]) -> ValueT | None:
    """Return the constant that holds the weight which ``node`` multiplies by; None if there is none."""
    position = _WEIGHT_INPUT.get(node.op_type)
    if position is None or len(node.inputs) <= position:
        return None
    return _stored(node.inputs[position], rank=3 if node.op_type == BLOCKS else 2)


def _stored(value: ValueT | None, *, rank: int) -> ValueT | None:
    """Return the matrix in the file that ``value`` is, or is made of; None for an activation, or another rank."""
    while value is not None:
        if value.const_value is not None and not value.is_graph_input():
            return value if len(value.const_value.shape) == rank else None
        producer = value.producer()
        if producer is None or producer.op_type not in _PREPARATION:
            return None
        value = producer.inputs[0]
    return None
