"""What is known of a node beside its operator: facts that travel with it, as its metadata, and never as its name.

Rewrites add nodes: a second product of a layer, an Add that shifts its input. What such a node is for, and for which
layer, is noted on it (``mark_node``). Whoever must know reads that: names are the user's own.

Engines drop the metadata of nodes, but keep that of the file. So a file that is written for an engine lists its
products there (``products_note``): by which node and which weight each Linear layer is computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from edgevit.errors import GraphError
from edgevit.json import decode

if TYPE_CHECKING:
    import onnx_ir as ir

#: The key of the list of products in a file's metadata.
PRODUCTS = "edgevit.products"
_ROLE, _LAYER = "edgevit.role", "edgevit.layer"


class Role(Enum):
    """What a node that a rewrite has added is for."""

    #: Multiplies some outputs of a layer, as query, key or value: the layer was split.
    SPLIT = "split"
    #: Multiplies what rounding leaves of a layer's input (residual quantization).
    RESIDUAL = "residual"
    #: Puts the residual product of one token among zeros for all others.
    RESIDUAL_PLACED = "residual-placed"
    #: Adds the residual product to the layer's output.
    RESIDUAL_SUM = "residual-sum"
    #: Gives a layer's input on the grid of its scale; its first input is that before.
    FAKE_QUANT = "fake-quant"
    #: Divides channels of a layer's input, by a Mul with a constant.
    EQUALIZE = "equalize"
    #: Shifts a layer's input, by an Add of a constant.
    SHIFT = "shift"
    #: Divides each token of a layer's input by its scale.
    PER_TOKEN_SCALE = "token-scale"  # noqa: S105 - of a model, not of a person
    #: Says which tokens are merged, behind an attention; in float32, as what it reads.
    MATCHING = "matching"
    #: Is computed in float32 also where the rest is in float16.
    FLOAT32 = "float32"
    #: Helps one of the others.
    PART = "part"


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A node that multiplies by a weight of a Linear ``layer``, and the constant that holds that weight."""

    layer: str
    node: str
    weight: str


def mark_node(node: ir.Node, role: Role, layer: str) -> ir.Node:
    """Note that ``node`` was added as ``role`` for the Linear layer, or what else is called ``layer``; return it."""
    node.metadata_props[_ROLE] = role.value
    node.metadata_props[_LAYER] = layer
    return node


def role_of(node: ir.Node | None) -> Role | None:
    """Return what ``node`` was added for; None if no rewrite added it."""
    value = None if node is None else node.metadata_props.get(_ROLE)
    return None if value is None else Role(value)


def layer_of(node: ir.Node) -> str | None:
    """Return the Linear layer that ``node`` was added for; None if no rewrite added it."""
    return node.metadata_props.get(_LAYER)


def is_marked(node: ir.Node | None, role: Role, layer: str) -> bool:
    """Say whether ``node`` was added as ``role`` for ``layer``."""
    return node is not None and role_of(node) is role and layer_of(node) == layer


def before_fake_quant(value: ir.Value) -> ir.Value:
    """Return what was put on a grid to make ``value``, or ``value`` itself if it was not.

    An emitter rounds that for itself: engines look for Q/DQ that feed one product alone, and what is rounded is the
    same.
    """
    node = value.producer()
    exact = node.inputs[0] if node is not None and role_of(node) is Role.FAKE_QUANT else None
    return value if exact is None else exact


def clear_facts(graph: ir.Graph) -> None:
    """Remove all that is noted on nodes: of a file of others, it would not be ours."""
    for node in graph.all_nodes():
        for key in (_ROLE, _LAYER):
            node.metadata_props.pop(key, None)


def products_note(products: Iterable[Product]) -> str:
    """Return what the metadata of a file says of its ``products``, under ``PRODUCTS``."""
    return msgspec.json.encode(list(products)).decode()


def noted_products(note: str | None) -> list[Product]:
    """Return the products that ``note`` lists; none where there is no note.

    Raises:
        GraphError: if it cannot be understood.

    """
    if note is None:
        return []
    try:
        products: list[Product] = decode(note, list[Product])
    except ValueError as error:
        raise GraphError(
            f"the model's list of products cannot be understood: {error}", remedy="build this variant again"
        ) from error
    return products


def by_weight(products: Iterable[Product]) -> dict[str, Product]:
    """Return ``products`` by the constants that hold their weights; those with the same weight are of one layer."""
    return {product.weight: product for product in products}
