"""Which operators the Linear layers of an ONNX graph have become, after onnxruntime has optimised it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.backends.base import LinearKernel, join_parts
from edgevit.graph.node_facts import PRODUCTS, Product, by_weight, layer_of, noted_products
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
_BLOCKS = "MatMulNBits"  # its weight has three axes

#: Operators between a stored weight and the product that uses it.
_PREPARATION = ("Cast", "DequantizeLinear", "Identity", "Reshape", "Transpose")


def read_kernels(model: Path, optimised: Path) -> list[LinearKernel]:
    """Return the operator of each Linear layer in ``optimised``, which onnxruntime made of ``model``.

    The optimiser renames nodes when it fuses them, but hands on the weights, and the list in the file's metadata that
    names the layers by them. A file without that list is read itself: its layers are named as its nodes.
    """
    with _read(optimised) as graph:
        products = by_weight(noted_products(graph.metadata_props.get(PRODUCTS)))
        found = [(each, node.op_type, _type_of(node)) for node in graph.graph if (each := _product(node)) is not None]
    if not products:
        with _read(model) as graph:
            products = by_weight(products_in(graph.graph))
    return join_parts(
        LinearKernel(
            layer=products[name].layer if (name := _undecorated(each.weight)) in products else each.node,
            kernel=operator,
            integer=operator in _INTEGER,
            weight=kind,
        )
        for each, operator, kind in found
    )


def products_in(graph: ir.Graph) -> list[Product]:
    """Return the nodes of ``graph`` that multiply by a stored weight, with the layers that they compute."""
    return [each for node in graph if (each := _product(node)) is not None]


@contextmanager
def _read(path: Path) -> Iterator[ir.Model]:
    import onnx  # not on every device, which needs neither for inference
    import onnx_ir as ir

    with letting_go(ir.serde.from_proto(onnx.load(path))) as model:
        yield model


def _product(node: ir.Node) -> Product | None:
    weight = _weight_of(node)
    if weight is None:
        return None
    name = node.name or str(node.outputs[0].name)
    return Product(layer=layer_of(node) or name, node=name, weight=str(weight.name))


def _weight_of(node: ir.Node) -> ir.Value | None:
    position = _WEIGHT_INPUT.get(node.op_type)
    if position is None or len(node.inputs) <= position:
        return None
    return _stored(node.inputs[position], rank=3 if node.op_type == _BLOCKS else 2)


def _type_of(node: ir.Node) -> str:
    weight = _weight_of(node)
    if node.op_type == _BLOCKS:
        return f"uint{node.attributes.get_int('bits', 4)}"
    return str(weight.const_value.dtype.numpy()) if weight is not None and weight.const_value is not None else ""


def _undecorated(name: str) -> str:
    """Return the name that a weight had before onnxruntime moved a Cast over it, or transposed it."""
    return name.removeprefix("FusedBack_").removesuffix("_T")


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
