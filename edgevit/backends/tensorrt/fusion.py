"""What TensorRT could fuse or multiply in integers, read off the nodes of an ONNX graph that its parser lists."""

from __future__ import annotations

from dataclasses import dataclass

from edgevit.backends.tensorrt.kernel_log import Graph, Node, Tensor
from edgevit.backends.tensorrt.limits import why_not_fused

_PASSED_THROUGH = frozenset(("Add", "Cast", "Div", "Mul", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))


@dataclass(frozen=True, slots=True)
class AttentionNodes:
    """An attention: its softmax and two products, and of their four factors which types they were quantized to."""

    name: str
    nodes: frozenset[str]
    factors: tuple[str | None, ...]
    type: str
    head_size: int
    tokens: int

    @property
    def quantized(self) -> bool:
        """Say whether all four factors are quantized."""
        return None not in self.factors

    def obstacle(self) -> str:
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
        return why_not_fused(self.head_size, self.tokens) or "unknown why"


def find_linears(graph: Graph) -> dict[str, bool]:
    """Return the names of the products with a constant, by whether what they multiply is quantized."""
    makers = _makers(graph)
    return {
        name: all(_quantized_to(value, makers) for value in node.inputs[:2])
        for name, node in graph.nodes.items()
        if node.operator in ("MatMul", "Gemm")
        and len(node.inputs) > 1
        and node.inputs[1].name in graph.constants
        and node.inputs[0].name not in graph.constants
    }


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
            if node.operator in ("QuantizeLinear", "DequantizeLinear", "Cast"):
                names |= {value.name for value in node.outputs}
    return None
