"""Finds attention, quantized values and LayerNorms in a graph that any exporter may have written, in any precision.

What rewrites a graph needs more of an attention than this finds: ``graph.attention`` adds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from edgevit.graph.protocols import Node, NodeT, Value

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_RETYPES = ("Cast", "Identity")
#: Operators that give each value that they take, or some of them, in another shape or type; and scaled, too.
_MOVES = (*_RETYPES, "Gather", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_SCALES = ("Div", "Mul", *_MOVES)
#: Operators between the product of query and key, and softmax: a scale, and a mask or a bias of positions.
_IN_FRONT_OF_SOFTMAX = ("Add", *_SCALES)


@dataclass(frozen=True, slots=True)
class AttentionProducts(Generic[NodeT]):
    """An attention: ``scores`` multiplies query and key, ``mixed`` what ``softmax`` makes of that and the values."""

    softmax: NodeT
    scores: NodeT
    mixed: NodeT

    @property
    def head_size(self) -> int | None:
        """The features of a head; None where the graph does not say."""
        return _last_size(self.scores.inputs[0])

    @property
    def tokens(self) -> int | None:
        """How many tokens are looked at; None where the graph does not say."""
        return _last_size(self.scores.inputs[1])

    def dequantizers(self) -> tuple[NodeT | None, ...]:
        """Return what dequantizes query, key, what softmax gives, and value; None for each that is not quantized."""
        return tuple(dequantizer_of(value) for node in (self.scores, self.mixed) for value in node.inputs[:2])

    def adds_computed(self) -> bool:
        """Say whether something is added to the scores that is no constant, such as the sizes of merged tokens."""
        addition = behind(self.softmax.inputs[0], _SCALES)
        if addition is None or addition.op_type != "Add":
            return False
        others = [each for each in addition.inputs if behind(each, _IN_FRONT_OF_SOFTMAX) is not self.scores]
        makers = [None if each is None else each.producer() for each in others]
        return any(maker is not None and maker.op_type != "Constant" for maker in makers)

    def ends_quantized(self) -> bool:
        """Say whether what it gives goes to QuantizeLinear alone, in whatever shape."""
        users = consumers_behind(self.mixed, _MOVES)
        return bool(users) and all(user.op_type == "QuantizeLinear" for user in users)

    def product_cut_apart(self) -> NodeT | None:
        """Return the product that a Split cuts the query from, the bias added; None if there is none."""
        split = behind(self.scores.inputs[0], _SCALES)
        product = behind(split.inputs[0], ("Add",)) if split is not None and split.op_type == "Split" else None
        return product if product is not None and product.op_type == "MatMul" else None


def attention_around(softmax: NodeT) -> AttentionProducts[NodeT] | None:
    """Return the attention that the node ``softmax`` is of, if it is a softmax between two products."""
    if softmax.op_type != "Softmax" or not softmax.inputs:
        return None
    scores, mixed = behind(softmax.inputs[0], _IN_FRONT_OF_SOFTMAX), mixed_by(softmax)
    if scores is None or scores.op_type != "MatMul" or mixed is None:
        return None
    return AttentionProducts(softmax, scores, mixed)


def mixed_by(softmax: NodeT) -> NodeT | None:
    """Return the product of what the node ``softmax`` gives and the values, whatever softmax looks at."""
    users = consumers_behind(softmax, (*_QDQ, *_RETYPES))
    return next((user for user in users if user.op_type == "MatMul"), None)


def attention_names(nodes: Iterable[NodeT]) -> dict[NodeT, str]:
    """Return for each softmax among ``nodes`` by what name to tell the attention around it from all others.

    It is the module, as in ``blocks.0.attn`` or ``/layer.0/attn``. Where softmaxes share one, as ``/encoder/Softmax``
    and ``/encoder/Softmax_1`` do, it is the softmax's own name, which is the way of Paddle's exporter, too:
    ``Softmax.1``. It is empty where names do not tell.
    """
    softmaxes = [node for node in nodes if node.op_type == "Softmax"]
    count = Counter(_module_of(node) for node in softmaxes)

    def wanted(node: NodeT) -> str:
        module = _module_of(node)
        # None of several may be called as the module: that would be another for who knows the name.
        return module if count[module] == 1 and module != node.op_type else ((module and node.name) or "")

    names = {node: wanted(node) for node in softmaxes}
    count = Counter(names.values())
    return {node: name if count[name] == 1 else "" for node, name in names.items()}


def _module_of(node: Node[Any]) -> str:
    name = node.name or ""
    return name[: max(name.rfind("."), name.rfind("/"), 0)]


def dequantizer_of(value: Value[NodeT] | None) -> NodeT | None:
    """Return the DequantizeLinear that ``value`` comes from, in whatever shape and scale; None if it is none."""
    node = behind(value, _SCALES)
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def is_cut_apart(product: Node[Any]) -> bool:
    """Say whether a Split takes what ``product`` gives, its bias added."""
    return any(user.op_type == "Split" for user in consumers_behind(product, ("Add",)))


def is_decomposed_layer_norm(node: NodeT) -> bool:
    """Say whether ``node`` is the square root of a LayerNorm that is made of single operations."""
    if node.op_type != "Sqrt":
        return False
    variance = behind(node.inputs[0], ("Add",))
    if variance is None or variance.op_type != "ReduceMean":
        return False
    centred = behind(variance.inputs[0], ("Pow", "Mul"))
    mean = centred.inputs[1] if centred is not None and centred.op_type == "Sub" else None
    maker = None if mean is None else mean.producer()
    return maker is not None and maker.op_type == "ReduceMean"


def behind(value: Value[NodeT] | None, through: Sequence[str]) -> NodeT | None:
    """Return the node that ``value`` comes from, if only operators of ``through`` lie between."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in through:
        makers = (source.producer() for source in node.inputs if source is not None)
        node = next((maker for maker in makers if maker is not None), None)
    return node


def consumers_behind(node: NodeT, through: Sequence[str]) -> list[NodeT]:
    """Return the nodes that take what ``node`` gives, directly or behind operators of ``through``.

    Where such an operator ends a path, it is returned itself.
    """
    waiting, seen = _consumers(node), set()
    found = []
    while waiting:
        user = waiting.pop(0)
        if id(user) in seen:
            continue
        seen.add(id(user))
        following = _consumers(user) if user.op_type in through else []
        if not following:
            found.append(user)
        waiting = following + waiting
    return found


def _consumers(node: NodeT) -> list[NodeT]:
    return [user for value in node.outputs for user in value.consumers()]


def _last_size(value: Value[Any] | None) -> int | None:
    shape = None if value is None else value.shape
    size = shape[-1] if shape is not None and len(shape) else None
    return size if isinstance(size, int) and size > 0 else None
