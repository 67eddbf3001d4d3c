"""Which operators the Linear layers of an ONNX graph have become, after onnxruntime has optimised it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.backends.base import LinearKernel
from edgevit.graph.weights import letting_go

if TYPE_CHECKING:
    import onnx_ir as ir

#: Operators that multiply by a weight in integers, with the position of the weight among their inputs.
_INTEGER = {
    "DynamicQuantizeMatMul": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "QAttention": 1,
    "QGemm": 3,
    "QLinearMatMul": 3,
}
#: The same for those that do it in floating point.
_FLOAT = {"Attention": 1, "FusedGemm": 1, "FusedMatMul": 1, "Gemm": 1, "MatMul": 1, "MatMulNBits": 1}
_WEIGHT_INPUT = {**_INTEGER, **_FLOAT}

#: Operators between a stored weight and the product that uses it.
_PREPARATION = ("Cast", "DequantizeLinear", "Identity", "Reshape", "Transpose")


@dataclass(frozen=True, slots=True)
class _Product:
    node: str
    operator: str
    weight: str
    type: str


def read_kernels(model: Path, optimised: Path) -> list[LinearKernel]:
    """Return the operator of each Linear layer in ``optimised``, which onnxruntime made of ``model``.

    A layer is named as the node in ``model`` that multiplies by its weight: the optimiser renames nodes when it fuses
    them, but hands on the weights.
    """
    names = {product.weight: product.node for product in _products(model)}
    return [
        LinearKernel(
            layer=names.get(_undecorated(product.weight), product.node),
            kernel=product.operator,
            integer=product.operator in _INTEGER,
            weight=product.type,
        )
        for product in _products(optimised)
    ]


def _products(path: Path) -> list[_Product]:
    import onnx  # not on every device, which needs neither for inference
    import onnx_ir as ir

    with letting_go(ir.serde.from_proto(onnx.load(path))) as model:
        return [found for node in model.graph if (found := _product(node)) is not None]


def _product(node: ir.Node) -> _Product | None:
    position = _WEIGHT_INPUT.get(node.op_type)
    if position is None or len(node.inputs) <= position:
        return None
    blocks = node.op_type == "MatMulNBits"
    weight = _stored(node.inputs[position], rank=3 if blocks else 2)
    if weight is None:
        return None
    kind = f"uint{node.attributes.get_int('bits', 4)}" if blocks else _type(weight)
    return _Product(node.name or str(node.outputs[0].name), node.op_type, str(weight.name), kind)


def _undecorated(name: str) -> str:
    """Return the name that a weight had before onnxruntime moved a Cast over it, or transposed it."""
    return name.removeprefix("FusedBack_").removesuffix("_T")


def _type(weight: ir.Value) -> str:
    return str(weight.const_value.dtype.numpy()) if weight.const_value is not None else ""


def _stored(value: ir.Value | None, *, rank: int) -> ir.Value | None:
    """Return the matrix in the file that ``value`` is, or is made of; None for an activation, or another rank."""
    while value is not None:
        if value.const_value is not None and not value.is_graph_input():
            return value if len(value.const_value.shape) == rank else None
        producer = value.producer()
        if producer is None or producer.op_type not in _PREPARATION:
            return None
        value = producer.inputs[0]
    return None
