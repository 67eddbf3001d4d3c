"""Give tokens a number that an engine's kernels like: rows are added that nothing looks at."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgevit.graph.attention import AttentionSubgraph, find_attentions
from edgevit.graph.attention_rows import add_to_scores, resized_shape, set_tokens
from edgevit.graph.editing import NodeBuilder, add_constant
from edgevit.graph.nested import has_graph
from edgevit.graph.row_wise import TOKEN_AXIS, is_row_wise, row_inputs, same_for_all, tokens_of
from edgevit.graph.token_merging import slice_tokens
from edgevit.graph.token_stream import keeps_rows, takes_first

#: Added to the scores of keys that are none: the softmax of it is 0, and float16 and bfloat16 hold it.
_HIDDEN = -1e4
#: A number that kernels like: they take rows in blocks of 4, 6, 8 or 16.
MULTIPLE = 8


class PadTokens(ir.passes.InPlacePass):
    """Adds rows behind the tokens in front of the first block, copies of the last, up to a multiple of ``MULTIPLE``.

    Linear layers compute them, too, and attention looks past them: it gives what it gave before. Where the rows of all
    tokens are looked at otherwise, those that were added are cut off, as they are where tokens are merged.

    Copies make no numbers that real tokens do not: their scores are the last token's, and so far below its by what is
    added that no softmax sees them; and what divides by a row's length or the like does not divide by 0.

    Values must have shapes. A graph without attention in the form of EdgeViT's exports, or with as many tokens already,
    is left as it is.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        padding = _find(model.graph)
        if padding is None or not padding.added:
            return ir.passes.PassResult(model, modified=False)
        _pad(model.graph, padding)
        return ir.passes.PassResult(model, modified=True)


def padding_of(graph: ir.Graph) -> tuple[int, int]:
    """Return how many tokens ``graph`` has, and how many rows ``PadTokens`` would add; 0 and 0 where it finds none."""
    padding = _find(graph)
    return (0, 0) if padding is None else (padding.tokens, padding.added)


@dataclass(slots=True)
class _PaddedRows:
    """What gets more rows: ``values`` of ``tokens`` each, made of ``start``; and what looks at them otherwise."""

    start: ir.Value
    tokens: int
    values: list[ir.Value] = field(default_factory=list)
    attentions: list[AttentionSubgraph] = field(default_factory=list)
    consumers: list[tuple[ir.Node, int]] = field(default_factory=list)

    @property
    def added(self) -> int:
        """How many rows are to be added."""
        return -self.tokens % MULTIPLE if self.attentions else 0


def _find(graph: ir.Graph) -> _PaddedRows | None:
    if any(map(has_graph, graph)):
        return None  # a branch or a loop may look at any value
    attentions = find_attentions(graph)
    start = _start(attentions[0].query) if attentions else None
    tokens = tokens_of(start)
    if start is None or tokens is None or start.producer() is None:
        return None
    taking = [each for each in attentions if each.bias is None]
    while True:  # an attention of which the keys, say, turn out to be none of these tokens looks at them as others do
        padding = _follow(graph, start, tokens, taking)
        if len(padding.attentions) == len(taking):
            return padding
        taking = padding.attentions


def _follow(graph: ir.Graph, start: ir.Value, tokens: int, taking: list[AttentionSubgraph]) -> _PaddedRows:
    """Follow ``start`` through the graph and the attentions that are ``taking`` more rows."""
    padding = _PaddedRows(start, tokens)
    by_output = {attention.output: attention for attention in taking}
    inside = {node for each in taking for node in (*each.query_path, *each.other_paths)}
    seen: dict[ir.Value | None, None] = {start: None}
    for node in graph:
        attention = by_output.get(node.outputs[0])
        taken = [index for index, value in enumerate(node.inputs) if value in seen]
        if attention is not None and {attention.key, attention.value} <= seen.keys():
            padding.attentions.append(attention)
            if attention.query in seen:
                seen[attention.output] = None
        elif node in inside:
            continue
        elif taken and keeps_rows(node, seen):
            seen.update(dict.fromkeys(node.outputs))
        else:
            padding.consumers += [(node, index) for index in taken]
    padding.values = [value for value in seen if value is not None]
    return padding


def _start(value: ir.Value) -> ir.Value:
    """Return the first tokens that ``value`` is made of, and of nothing else, by nodes that treat each by itself."""
    while (node := value.producer()) is not None:
        if node.op_type == "Split":  # of query, key and value
            made = [node.inputs[0]]
        elif is_row_wise(node):
            made = [node.inputs[position] for position in row_inputs(node)]
        else:
            break
        tokens = [each for each in made if each is not None and not same_for_all(each)]
        if len(tokens) != 1:
            break
        (value,) = tokens
    return value


def _pad(graph: ir.Graph, padding: _PaddedRows) -> None:
    tokens, start = padding.tokens, padding.start
    wanted = tokens + padding.added
    bias = np.zeros((1, 1, 1, wanted), np.float32)
    bias[..., tokens:] = _HIDDEN
    hidden = add_constant(graph, f"{start.name}.hidden", bias)
    consumers = [(node, index) for node, index in padding.consumers if not _stays(node, tokens)]
    outputs = [value for value in graph.outputs if value in padding.values]
    for attention in padding.attentions:
        queries = wanted if attention.query in padding.values else None
        set_tokens(graph, attention, queries=queries, keys=wanted)
        add_to_scores(graph, attention, hidden, "padding")
    producer = start.producer()
    assert producer is not None  # noqa: S101 - it is made of the images
    for value in padding.values:
        if value is not start:
            value.shape = resized_shape(value.shape, {TOKEN_AXIS: wanted})
    unpadded = {(node, index) for node, index in padding.consumers}
    uses = [use for use in start.uses() if use not in unpadded]
    build = NodeBuilder(graph, f"{start.name}.padding")
    pads = build.constant("pads", [0, 0, 0, 0, wanted - tokens, 0])
    padded = build.op("Pad", [start, pads], "tokens", mode="edge")
    padded.shape, padded.type = resized_shape(start.shape, {TOKEN_AXIS: wanted}), start.type
    graph.insert_after(producer, build.nodes)
    for node, index in uses:
        node.replace_input_with(index, padded)
    cut: dict[ir.Value, ir.Value] = {start: start}
    for node, index in consumers:
        read = node.inputs[index]
        assert read is not None  # noqa: S101 - so is a reader found
        if not _end_before(graph, node, tokens):
            node.replace_input_with(index, _cut(graph, read, tokens, cut))
    for value in outputs:
        whole = _cut(graph, value, tokens, cut)
        if whole is not value:
            graph.outputs[graph.outputs.index(value)] = whole
            value.name, whole.name = f"{value.name}.padded", value.name


def _stays(node: ir.Node, tokens: int) -> bool:
    """Say whether ``node`` gives the same whether there are more than the first ``tokens`` or not."""
    if node.op_type == "Shape":
        return node.attributes.get_int("start", 0) == 0 and node.attributes.get_int("end", 0) == 1  # the batch
    return node.op_type != "Size" and takes_first(node, tokens)


def _end_before(graph: ir.Graph, node: ir.Node, tokens: int) -> bool:
    """Let ``node`` take none behind the first ``tokens`` if it is a Slice of them, and say whether it is."""
    constants = [None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs[1:]]
    if node.op_type != "Slice" or len(constants) < len(("starts", "ends", "axes")) or None in constants:
        return False
    starts, ends, axes, *steps = (constant.numpy() for constant in constants if constant is not None)
    forwards = all(step.min() > 0 for step in steps)
    if axes.tolist() != [TOKEN_AXIS] or starts.min() < 0 or ends.min() < 0 or not forwards:
        return False
    node.replace_input_with(2, add_constant(graph, f"{node.name}.end", np.minimum(ends, tokens)))
    return True


def _cut(graph: ir.Graph, value: ir.Value, tokens: int, cut: dict[ir.Value, ir.Value]) -> ir.Value:
    """Return the first ``tokens`` of ``value``."""
    if value not in cut:
        build = NodeBuilder(graph, f"{value.name}.cut")
        first = slice_tokens(build, value, 0, tokens, "tokens")
        first.shape, first.type = resized_shape(value.shape, {TOKEN_AXIS: tokens}), value.type
        producer = value.producer()
        assert producer is not None  # noqa: S101 - it is made of the images
        graph.insert_after(producer, build.nodes)
        cut[value] = first
    return cut[value]
