"""Follow a ViT's tokens through its blocks: what treats each by itself, what mixes them, what looks at all of them."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from itertools import chain

import onnx_ir as ir

from edgevit.errors import GraphError
from edgevit.graph.attention import AttentionSubgraph, find_attentions, find_turned_attentions
from edgevit.graph.row_wise import BIAS, TOKEN_AXIS, is_row_wise, row_inputs, same_for_all, tokens_of
from edgevit.graph.shapes import complete_shapes
from edgevit.graph.token_prefix import prefix_of

_FEATURES = (2, -1)  # the last axis of (B, N, D)


@dataclass(frozen=True, slots=True)
class EncoderBlock:
    """An attention and the sum of what came in and what it gave, ``residual`` (B, N, D)."""

    attention: AttentionSubgraph
    residual: ir.Value

    @property
    def output(self) -> ir.Value:
        """What goes on to the next block: the sum of ``residual`` and what the MLP makes of it."""
        sums = [node for node, _ in self.residual.uses() if node.op_type == "Add"]
        return sums[0].outputs[0] if sums else self.residual


@dataclass(slots=True)
class TokenStream:
    """The tokens (B, N, D) of a ViT, from the first block's residual sum on.

    Of ``tokens`` the first ``prefix`` are no patches, but class token, distillation token or registers. ``values``
    hold a row for each token, in the order in which they are computed; those of attention between heads are left out.
    ``consumers`` are inputs of other nodes, at which all tokens are looked at; ``outputs`` those that the graph gives.
    """

    tokens: int
    prefix: int
    blocks: list[EncoderBlock]
    values: list[ir.Value] = field(default_factory=list)
    consumers: list[tuple[ir.Node, int]] = field(default_factory=list)
    outputs: list[ir.Value] = field(default_factory=list)

    @property
    def patches(self) -> int:
        """How many of the tokens are of patches."""
        return self.tokens - self.prefix


def find_token_stream(graph: ir.Graph) -> TokenStream:
    """Return the tokens of ``graph``; shapes of values are completed.

    Raises:
        GraphError: if its blocks are not recognised: attention in another form, tokens that are moved between blocks.

    """
    complete_shapes(graph)
    attentions = find_attentions(graph)
    if not attentions:
        raise unmergeable(_no_attention_reason(graph))
    blocks = [EncoderBlock(attention, _residual(attention)) for attention in attentions]
    count = tokens_of(blocks[0].residual)
    assert count is not None  # noqa: S101 - so is a residual sum found
    stream = TokenStream(count, _prefix(graph, blocks[0]), blocks)
    _follow(graph, stream)
    return stream


def unmergeable(reason: str) -> GraphError:
    """Return the error that says for what ``reason`` tokens of a model cannot be merged."""
    return GraphError(
        f"tokens cannot be merged in this model: {reason}",
        remedy="quantize it without --token-budget",
    )


def _no_attention_reason(graph: ir.Graph) -> str:
    if find_turned_attentions(graph):
        return (
            "its attention does more than compare queries with keys, such as by rotary positions, by a norm in each "
            "head, or by a bias, which merged tokens have no place in"
        )
    return "no attention is found in it in which each token looks at all others, as in a plain ViT"


def _residual(attention: AttentionSubgraph) -> ir.Value:
    """Return the sum of what ``attention`` gives, projected, and what came into the block."""
    value = attention.output
    while len(value.uses()) == 1:
        ((node, _),) = value.uses()
        if not is_row_wise(node):
            break
        if node.op_type == "Add" and not any(same_for_all(each) for each in node.inputs):
            return node.outputs[0]
        value = node.outputs[0]
    raise unmergeable(f"what {attention.name} gives is not added to what came into it")


def _prefix(graph: ir.Graph, first: EncoderBlock) -> int:
    """Return how many tokens come before the patches, the same for all images: class token, registers."""
    producer = first.residual.producer()
    assert producer is not None  # noqa: S101 - a residual sum
    before = [each for each in producer.inputs if each is not None and not _comes_from(each, first.attention.output)]
    prefix = prefix_of(graph, before[0]) if len(before) == 1 else None
    if prefix is None:
        raise unmergeable("its patches are not the last of its tokens")
    return prefix


def _comes_from(value: ir.Value, other: ir.Value) -> bool:
    """Say whether ``value`` is ``other``, or made of it by nodes that treat each token by itself."""
    while value is not other:
        node = value.producer()
        if node is None or not is_row_wise(node):
            return False
        made = [node.inputs[position] for position in row_inputs(node)]
        made = [each for each in made if each is not None and not same_for_all(each)]
        if len(made) != 1 or made[0] is None:
            return False
        value = made[0]
    return True


def _follow(graph: ir.Graph, stream: TokenStream) -> None:
    """Find the values and the consumers of ``stream``."""
    inside = {node for block in stream.blocks for node in _nodes(block.attention)}
    attentions = {block.attention.output: block.attention for block in stream.blocks}
    seen: dict[ir.Value | None, None] = {stream.blocks[0].residual: None}
    for node in graph:
        attention = attentions.get(node.outputs[0])
        taken = [index for index, value in enumerate(node.inputs) if value in seen]
        if attention is not None and {attention.query, attention.key, attention.value} <= seen.keys():
            seen[attention.output] = None
        elif node in inside or not taken:
            continue
        elif keeps_rows(node, seen):
            seen.update(dict.fromkeys(node.outputs))
        elif not takes_first(node, stream.prefix):
            stream.consumers += [(node, index) for index in taken]
    stream.values = [value for value in seen if value is not None]
    stream.outputs = [value for value in graph.outputs if value in seen]
    for block in stream.blocks:
        name = block.attention.name
        if block.residual not in seen:
            raise unmergeable(f"other operators than Linear layers and norms change the tokens before {name}")
        if tokens_of(block.residual) != stream.tokens:
            raise unmergeable(f"{name} has another number of tokens than the first")


def _nodes(attention: AttentionSubgraph) -> Iterator[ir.Node]:
    yield from attention.query_path
    yield from attention.other_paths


def keeps_rows(node: ir.Node, seen: Container[ir.Value | None]) -> bool:
    """Say whether ``node`` gives a row for each row of ``seen`` values, and looks at no others."""
    if is_row_wise(node):
        if node.op_type in BIAS and any(each in seen for each in node.inputs[1:]):
            return False  # a fused attention looks at all keys and values
        given = [node.inputs[position] for position in row_inputs(node)]
        return all(each in seen or same_for_all(each) for each in given)
    if node.op_type == "Slice" and len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = ir.convenience.get_const_tensor(node.inputs[3])
        return axes is not None and set(axes.numpy().tolist()) <= set(_FEATURES)
    return node.op_type == "Split" and node.attributes.get_int("axis", 0) in _FEATURES


def takes_first(node: ir.Node, count: int) -> bool:
    """Say whether ``node`` looks at none but the first ``count`` tokens, such as class token and registers."""
    constants = [None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs[1:]]
    if any(constant is None for constant in constants):
        return False
    numbers = [constant.numpy().reshape(-1).tolist() for constant in constants if constant is not None]
    match node.op_type:
        case "Gather":
            return node.attributes.get_int("axis", 0) == TOKEN_AXIS and all(0 <= each < count for each in numbers[0])
        case "Slice":
            starts, ends, *more = numbers
            axes, *steps = more or [list(range(len(starts)))]
            forwards = all(step > 0 for step in chain(*steps))
            return axes == [TOKEN_AXIS] and forwards and starts[0] >= 0 and 0 <= ends[0] <= count
        case _:
            return node.op_type in ("Shape", "Size")
