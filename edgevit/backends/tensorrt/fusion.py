"""What TensorRT could fuse or multiply in integers, read off the nodes of an ONNX graph that its parser lists."""

from __future__ import annotations

from dataclasses import dataclass

from edgevit.backends.tensorrt.kernel_log import Graph, Node, Tensor
from edgevit.backends.tensorrt.limits import unfused_reason

_FACTORS = 2  # of a product
_PASSED_THROUGH = frozenset(("Add", "Cast", "Div", "Identity", "Mul", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))


@dataclass(frozen=True, slots=True)
class LinearNode:
    """A product with a constant; ``scales`` are of its input and its weight, none where they are not quantized.

    ``cut`` says whether a Split takes apart what it gives.
    """

    name: str
    scales: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    cut: bool

    @property
    def quantized(self) -> bool:
        """Say whether input and weight are quantized."""
        return bool(self.scales)

    def float_reason(self) -> str:
        """Return why TensorRT multiplies it in float though it is quantized, as far as is known."""
        of_input, of_weight = self.scales
        if of_input.size > 1:
            return "its input has a scale for each channel, not one"
        if of_weight.size not in (1, self.outputs[0].shape[-1]):
            return "its weight has a scale for each input, not for each output"
        if self.cut:
            return "what it gives is cut apart and not quantized again, so give each part a product of its own"
        return "unknown why"


@dataclass(frozen=True, slots=True)
class AttentionNodes:
    """An attention: its softmax and two products, and of their four factors which types they were quantized to.

    ``ends_quantized`` says whether what it gives goes to QuantizeLinear alone.
    """

    name: str
    nodes: frozenset[str]
    factors: tuple[str | None, ...]
    type: str
    head_size: int
    tokens: int
    ends_quantized: bool

    @property
    def quantized(self) -> bool:
        """Say whether all four factors are quantized."""
        return None not in self.factors

    def unfused_reason(self) -> str:
        """Return why TensorRT did not make one kernel of it, as far as is known."""
        count = sum(factor is not None for factor in self.factors)
        if 0 < count < len(self.factors):
            return f"{count} of its {len(self.factors)} factors are quantized, where all or none must be"
        if not count:
            return (
                "it is in float32, and float attention is fused in float16" if self.type == "float32" else "unknown why"
            )
        if "int8" not in self.factors:
            return "unknown why"
        if reason := unfused_reason(self.head_size, self.tokens):
            return reason
        return "unknown why" if self.ends_quantized else "what it gives is not quantized, as it must be for INT8"


def find_linears(graph: Graph) -> list[LinearNode]:
    """Return the products of ``graph`` with a constant."""
    makers = _makers(graph)
    found = []
    for name, node in graph.nodes.items():
        if node.operator not in ("MatMul", "Gemm") or len(node.inputs) < _FACTORS:
            continue
        factors = node.inputs[:_FACTORS]
        if factors[1].name not in graph.constants or factors[0].name in graph.constants:
            continue
        sources = [makers.get(factor.name) for factor in factors]
        scales = tuple(
            maker[1].inputs[1] for maker in sources if maker is not None and maker[1].operator == "DequantizeLinear"
        )
        found.append(LinearNode(name, scales if len(scales) == _FACTORS else (), node.outputs, _is_cut(node, graph)))
    return found


def _is_cut(node: Node, graph: Graph) -> bool:
    """Say whether a Split takes what ``node`` gives, the bias added."""
    names = {value.name for value in node.outputs}
    for user in graph.nodes.values():
        if names.intersection(value.name for value in user.inputs):
            if user.operator == "Split":
                return True
            if user.operator == "Add":
                names = {value.name for value in user.outputs}
    return False


def find_attentions(graph: Graph) -> list[AttentionNodes]:
    """Return the attentions of ``graph``: a softmax between two products."""
    makers = _makers(graph)
    found = []
    for name, node in graph.nodes.items():
        scores = _behind(node.inputs[0], makers) if node.operator == "Softmax" and node.inputs else None
        mixed = _product_of(node, graph)
        if scores is None or mixed is None or graph.nodes[scores].operator != "MatMul":
            continue
        query, key = graph.nodes[scores].inputs[:2]
        factors = (query, key, *graph.nodes[mixed].inputs[:2])
        found.append(
            AttentionNodes(
                name=name.rpartition(".")[0] or name,
                nodes=frozenset((name, scores, mixed)),
                factors=tuple(_quantized_to(factor, makers) for factor in factors),
                type=query.type,
                head_size=query.shape[-1],
                tokens=key.shape[-1],
                ends_quantized=_ends_quantized(graph.nodes[mixed], graph),
            )
        )
    return found


_Makers = dict[str, tuple[str, Node]]


def _makers(graph: Graph) -> _Makers:
    return {value.name: (name, node) for name, node in graph.nodes.items() for value in node.outputs}


def _behind(value: Tensor, makers: _Makers) -> str | None:
    """Return the name of the node that ``value`` comes from, if only sums, scales and shapes lie between."""
    found = makers.get(value.name)
    while found is not None and found[1].operator in _PASSED_THROUGH:
        sources = [makers[each.name] for each in found[1].inputs if each.name in makers]
        found = sources[0] if sources else None
    return None if found is None else found[0]


def _quantized_to(value: Tensor, makers: _Makers) -> str | None:
    """Return the type that ``value`` was dequantized from, None if it was not."""
    found = makers.get(value.name)
    while found is not None and found[1].operator in _PASSED_THROUGH - {"Add"}:
        found = makers.get(found[1].inputs[0].name)
    return found[1].inputs[0].type if found is not None and found[1].operator == "DequantizeLinear" else None


def _product_of(softmax: Node, graph: Graph) -> str | None:
    """Return the name of the MatMul that takes what ``softmax`` gives, or what Q/DQ make of it."""
    names = {value.name for value in softmax.outputs}
    for name, node in graph.nodes.items():
        if node.inputs and node.inputs[0].name in names:
            if node.operator == "MatMul":
                return name
            if node.operator in ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity"):
                names |= {value.name for value in node.outputs}
    return None


def _ends_quantized(node: Node, graph: Graph) -> bool:
    """Say whether what ``node`` gives goes to QuantizeLinear alone, in whatever shape."""
    names = {value.name for value in node.outputs}
    users = [user for user in graph.nodes.values() if user.inputs and user.inputs[0].name in names]
    return bool(users) and all(
        user.operator == "QuantizeLinear"
        or (user.operator in ("Gather", "Identity", "Reshape", "Transpose") and _ends_quantized(user, graph))
        for user in users
    )
