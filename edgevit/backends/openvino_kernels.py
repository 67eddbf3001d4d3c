"""Which kernels OpenVINO runs Linear layers with, read from a compiled model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from edgevit.backends.base import LinearKernel, join_products
from edgevit.graph.node_facts import Product

#: Layers of the compiled model that multiply by a weight; a MatMul is one only if its second input is constant.
_FULLY_CONNECTED = "FullyConnected"
_FUSED = "Subgraph"
#: Other layers that multiply; of a MatMul the second input is an activation then.
_OTHER_PRODUCTS = ("Convolution", "Deconvolution", "GroupConvolution", "MatMul")
_SCALING = "/DequantizationMultiply"
_SCALE_OF_ITS_OWN = re.compile(r"Multiply_\d+")
_OF_A_PRODUCT = 2  # inputs
#: What OpenVINO puts behind the name of a weight (K, 1), which it lays out anew.
_LAID_OUT_ANEW = ("/WithoutBiases/transpose_b", "/transpose_b")
_INTEGER_TYPES = ("i8", "u8")
_FLOAT_KERNELS = ("_f32", "_bf16", "_f16")
#: What OpenVINO's short names of types begin with, in full.
_TYPES = {"f": "float", "bf": "bfloat", "i": "int", "u": "uint"}


Products = Mapping[str, Product]  # by weight


def linear_kernels(runtime_model: Any, products: Products) -> list[LinearKernel]:  # noqa: ANN401
    """Return how each Linear layer of a compiled model is executed; ``products`` are those that its file lists."""
    nodes = runtime_model.get_ordered_ops()
    return join_products(_kernel(node, weight, products) for node in nodes for weight in _weights(node, products))


def integer_products(runtime_model: Any) -> frozenset[str]:  # noqa: ANN401
    """Return the names of the convolutions and products of two activations that a compiled model has in integers."""
    nodes = [node for node in runtime_model.get_ordered_ops() if _is_integer(node)]
    return frozenset(name for node in nodes for name in _integer_products(node))


def _integer_products(node: Any) -> list[str]:  # noqa: ANN401
    """Return which of the nodes that were compiled into ``node``, which takes integers, multiply in them.

    What has become an integer product is scaled behind it, by a node that OpenVINO calls by it. In a Subgraph, which
    may hold a whole attention, float products are beside it. Where a bias is added to the scaled scores, as the sizes
    of merged tokens are, the scale has a name of OpenVINO's own: then the Subgraph itself takes queries and keys in
    integers, and nothing but the product is in front of the scale.
    """
    names, kind = _info(node, "originalLayersNames").split(","), _info(node, "layerType")
    scaled = [name.removesuffix(_SCALING) for name in names if name.endswith(_SCALING)]
    if kind in _OTHER_PRODUCTS:
        return [*names, *scaled]
    if kind != _FUSED:
        return []
    if sum(_is_integer_type(value) for value in node.input_values()) >= _OF_A_PRODUCT:
        scaled += [name for name, behind in pairwise(names) if _SCALE_OF_ITS_OWN.fullmatch(behind)][:1]
    return scaled


def _is_integer_type(value: Any) -> bool:  # noqa: ANN401
    return str(value.get_element_type().get_type_name()) in _INTEGER_TYPES


def _is_integer(node: Any) -> bool:  # noqa: ANN401
    # Where weights alone are integers, OpenVINO calls the precision theirs and the kernel a float one; whether that
    # kernel quantizes the activations as they come, it does not tell.
    return _info(node, "runtimePrecision") in _INTEGER_TYPES and not _info(node, "primitiveType").endswith(
        _FLOAT_KERNELS
    )


def _kernel(node: Any, weight: Any, products: Products) -> LinearKernel:  # noqa: ANN401
    kernel = _info(node, "primitiveType")
    layer, kind = _layer(node, weight, products), _type_of(weight)
    return LinearKernel(layer=layer, kernel=kernel, integer=_is_integer(node), weight=kind)


def _weights(node: Any, products: Products) -> list[Any]:  # noqa: ANN401
    """Return the constants that are, or become, the weights of the Linear layers that a compiled model's node executes.

    On one thread, OpenVINO may compile the layers of a small MLP into one kernel, a Subgraph; which of its constants
    are weights only their names tell.
    """
    kind = _info(node, "layerType")
    if kind == _FUSED:
        behind = [constant for value in node.input_values() if (constant := _constant_behind(value)) is not None]
        return [constant for constant in behind if _product_of(constant, products) and _is_matrix(constant)]
    if kind.startswith(_FULLY_CONNECTED) or (kind == "MatMul" and _is_constant(node.input_value(1).get_node())):
        return [_root(node.input_value(1))]
    return []


def _constant_behind(value: Any) -> Any | None:  # noqa: ANN401
    root = _root(value)
    return root if _info(root, "layerType") == "Const" else None


def _root(value: Any) -> Any:  # noqa: ANN401
    """Return the node without inputs that is reached from ``value`` by going up by first inputs."""
    node = value.get_node()
    while node.get_input_size():
        node = node.input_value(0).get_node()
    return node


def _is_matrix(constant: Any) -> bool:  # noqa: ANN401
    return len(constant.get_output_partial_shape(0)) > 1


def _type_of(weight: Any) -> str:  # noqa: ANN401
    short = str(weight.get_output_element_type(0).get_type_name())
    return re.sub(r"\A(f|bf|i|u)(\d+)\Z", lambda match: f"{_TYPES[match[1]]}{match[2]}", short)


def _layer(node: Any, weight: Any, products: Products) -> str:  # noqa: ANN401
    """Return the name of the Linear layer with ``weight`` that a node of the compiled model executes.

    Nodes are renamed, the one behind the model's output for one; constants are not. Where the file lists no product
    with that weight, the node's own name has to do.
    """
    product = _product_of(weight, products)
    # What is fused into a layer is listed after it.
    return product.layer if product is not None else _info(node, "originalLayersNames").split(",")[0]


def _product_of(constant: Any, products: Products) -> Product | None:  # noqa: ANN401
    """Return the product whose weight is ``constant``, which OpenVINO may have laid out anew."""
    name = str(constant.get_friendly_name())
    for suffix in _LAID_OUT_ANEW:
        name = name.removesuffix(suffix)
    return products.get(name)


def _is_constant(node: Any) -> bool:  # noqa: ANN401
    """Say whether a node of the compiled model depends on no input of the model."""
    parents = [value.get_node() for value in node.input_values()]
    return all(_is_constant(parent) for parent in parents) if parents else _info(node, "layerType") == "Const"


def _info(node: Any, key: str) -> str:  # noqa: ANN401
    info = node.get_rt_info()
    return str(info[key].astype(str)) if key in info else ""
