"""Which operators the Linear layers of an ONNX graph have become, after onnxruntime has optimised it."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgevit.backends.base import LinearKernel, join_products
from edgevit.graph.node_facts import PRODUCTS, by_weight, noted_products
from edgevit.graph.products import BLOCKS, INTEGER, product_of, products_in, weight_of
from edgevit.graph.weights import letting_go

if TYPE_CHECKING:
    import onnx_ir as ir


#: Operators that convolve in integers.
_CONVOLUTIONS = ("ConvInteger", "QLinearConv")


class ReadKernels(NamedTuple):
    """How Linear layers are executed, and the names of what else multiplies in integers, and of its outputs."""

    linears: list[LinearKernel]
    integer_products: frozenset[str]


def read_kernels(model: Path, optimised: Path) -> ReadKernels:
    """Return the operator of each Linear layer in ``optimised``, which onnxruntime made of ``model``.

    The optimiser renames nodes when it fuses them, but hands on the weights, and the list in the file's metadata that
    names the layers by them. A file without that list is read itself: its layers are named as its nodes.
    """
    with _read(optimised) as graph:
        products = by_weight(noted_products(graph.metadata_props.get(PRODUCTS)))
        found = [(each, node.op_type, _type_of(node)) for node in graph.graph if (each := product_of(node)) is not None]
        others = [node for node in graph.graph if _is_integer_product(node)]
        names = frozenset(str(name) for node in others for name in (node.name, *(out.name for out in node.outputs)))
    if not products:
        with _read(model) as graph:
            products = by_weight(products_in(graph.graph))
    linears = join_products(
        LinearKernel(
            layer=products[name].layer if (name := _given(each.weight, products)) is not None else each.node,
            kernel=operator,
            integer=operator in INTEGER,
            weight=kind,
        )
        for each, operator, kind in found
    )
    return ReadKernels(linears, names)


def _is_integer_product(node: ir.Node) -> bool:
    """Say whether ``node`` convolves, or multiplies two activations, in integers; QAttention does that in float."""
    if node.op_type in _CONVOLUTIONS:
        return True
    return node.op_type in INTEGER and node.op_type != "QAttention" and weight_of(node) is None


@contextmanager
def _read(path: Path) -> Iterator[ir.Model]:
    import onnx  # not on every device, which needs neither for inference
    import onnx_ir as ir

    with letting_go(ir.serde.from_proto(onnx.load(path))) as model:
        yield model


def _type_of(node: ir.Node) -> str:
    weight = weight_of(node)
    if node.op_type == BLOCKS:
        return f"uint{node.attributes.get_int('bits', 4)}"
    return str(weight.const_value.dtype.numpy()) if weight is not None and weight.const_value is not None else ""


def _given(name: str, weights: Container[str]) -> str | None:
    """Return which of ``weights`` is called ``name`` by onnxruntime, which moves a Cast over it, or transposes it."""
    back = name.removeprefix("FusedBack_")
    names = (name, name.removesuffix("_T"), back, back.removesuffix("_T"))
    return next((each for each in names if each in weights), None)
