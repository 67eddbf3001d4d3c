"""What TensorRT could fuse or multiply in integers, of the nodes that its parser lists.

The nodes are those of the build's log and not of the ONNX file: a device that builds an engine has no onnx to read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgevit.backends.tensorrt.fusion_limits import unfused_reason
from edgevit.backends.tensorrt.kernel_log import ParsedNode, Tensor
from edgevit.graph.patterns import AttentionProducts, attention_around, attention_names, is_cut_apart
from edgevit.graph.products import weight_of

_FACTORS = 2  # of a product


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
    """An attention: the names of its softmax and two products, and which types their four factors were quantized to.

    ``type`` is that of the query; ``ends_quantized`` says whether what it gives goes to QuantizeLinear alone. Sizes are
    None where they are not fixed. ``adds_computed`` says whether something is added to the scores that is no constant.
    """

    name: str
    nodes: frozenset[str]
    factors: tuple[str | None, ...]
    type: str
    head_size: int | None
    tokens: int | None
    ends_quantized: bool
    adds_computed: bool = False

    @property
    def quantized(self) -> bool:
        """Say whether all four factors are quantized."""
        return None not in self.factors

    def float_reason(self) -> str:
        """Return why its kernel multiplies in float though it is quantized, as far as is known."""
        return "what is added to its scores is no constant" if self.adds_computed else "unknown why"

    def size_reason(self) -> str | None:
        """Return why it would be no single kernel in INT8 for its size; None if it would, or that is not known."""
        return None if self.head_size is None or self.tokens is None else unfused_reason(self.head_size, self.tokens)

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
        if reason := self.size_reason():
            return reason
        return "unknown why" if self.ends_quantized else "what it gives is not quantized, as it must be for INT8"


def parsed_linears(nodes: Iterable[ParsedNode]) -> list[LinearNode]:
    """Return the products among ``nodes`` with a stored weight."""
    return [
        LinearNode(node.name, _scales_of(node), tuple(value.tensor for value in node.outputs), is_cut_apart(node))
        for node in nodes
        if weight_of(node) is not None
    ]


def _scales_of(product: ParsedNode) -> tuple[Tensor, ...]:
    """Return the scales of both factors of ``product``; none where not both are dequantized right in front of it."""
    makers = [value.maker for value in product.inputs[:_FACTORS]]
    found = [maker.inputs[1].tensor for maker in makers if maker is not None and maker.op_type == "DequantizeLinear"]
    return tuple(found) if len(found) == _FACTORS else ()


def parsed_attentions(nodes: Iterable[ParsedNode]) -> list[AttentionNodes]:
    """Return the attentions among ``nodes``: a softmax between two products."""
    names = attention_names(nodes)
    return [_described(found, name) for node, name in names.items() if (found := attention_around(node)) is not None]


def _described(attention: AttentionProducts[ParsedNode], name: str) -> AttentionNodes:
    parts = (attention.softmax, attention.scores, attention.mixed)
    return AttentionNodes(
        name=name or attention.softmax.name or str(attention.softmax.outputs[0].name),
        nodes=frozenset(node.name for node in parts),
        factors=tuple(None if each is None else each.inputs[0].tensor.type for each in attention.dequantizers()),
        type=attention.scores.inputs[0].tensor.type,
        head_size=attention.head_size,
        tokens=attention.tokens,
        ends_quantized=attention.ends_quantized(),
        adds_computed=attention.adds_computed(),
    )
