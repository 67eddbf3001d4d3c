"""Merge tokens that are alike, so that what follows has fewer of them to multiply (ToMe, Bolya et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.errors import GraphError
from edgevit.graph import token_merging
from edgevit.graph.attention import AttentionSubgraph
from edgevit.graph.attention_rows import add_to_scores, resized_shape, set_tokens
from edgevit.graph.editing import NodeBuilder
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.row_wise import TOKEN_AXIS
from edgevit.graph.saving import put_in_order
from edgevit.graph.token_merging import TokenSets
from edgevit.graph.token_stream import EncoderBlock, TokenStream, find_token_stream, unmergeable
from edgevit.models.token_schedule import impossible_schedule_reason


class MergeTokens(ir.passes.InPlacePass):
    """Merges ``schedule[i]`` tokens behind the attention of block i, by their keys' mean over heads.

    A token that stands for s patches counts s times in the attention behind it: log s is added to the scores of its
    key. Class token, distillation token and registers are never merged. What looks at all tokens, as a mean or an
    output of tokens, sees each in its own place again, with what the one has that it went into. So outputs keep their
    shapes, and a mean is one over patches.

    The operators are standard ones of opset 20; shapes are static but for the batch. Values must have shapes.
    """

    def __init__(self, schedule: Sequence[int]) -> None:
        super().__init__()
        self._schedule = schedule

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph.

        Raises:
            GraphError: if its blocks are not recognised, or ``schedule`` does not fit them.

        """
        stream = find_token_stream(model.graph)
        check_stream_schedule(stream, self._schedule)
        if not any(self._schedule):
            return ir.passes.PassResult(model, modified=False)
        _Merger(model.graph, stream).merge(self._schedule)
        put_in_order(model.graph)
        InferShapes()(model)
        return ir.passes.PassResult(model, modified=True)


def check_stream_schedule(stream: TokenStream, schedule: Sequence[int]) -> None:
    """Check that ``schedule`` can be done: a block can merge half of the patches' tokens that are left.

    Raises:
        GraphError: if not.

    """
    problem = impossible_schedule_reason(stream.tokens, stream.prefix, len(stream.blocks), schedule)
    if problem is not None:
        raise GraphError(problem.message, remedy=problem.remedy)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What is known of the tokens at a place of the stream; values are None where nothing was merged yet.

    How many there are, for how many patches each stands (B, n, 1), the logarithm of that as a bias of attention
    (B, 1, 1, n), and at which place each of the first N tokens is now (B, N, 1).
    """

    count: int
    sizes: ir.Value | None = None
    bias: ir.Value | None = None
    places: ir.Value | None = None


class _Merger:
    """Goes along the stream, merges, and tells what comes behind how many tokens there are."""

    def __init__(self, graph: ir.Graph, stream: TokenStream) -> None:
        self._graph, self._stream = graph, stream
        self._of: dict[ir.Value, _Tokens] = {}
        self._restored: dict[ir.Value, ir.Value] = {}

    def merge(self, schedule: Sequence[int]) -> None:
        stream = self._stream
        merging = {block.residual: (block, count) for block, count in zip(stream.blocks, schedule, strict=True)}
        attentions = {block.attention.output: block.attention for block in stream.blocks}
        for value in stream.values:
            tokens = self._tokens_at(value, attentions.get(value))
            self._of[value] = tokens
            value.shape = resized_shape(value.shape, {TOKEN_AXIS: tokens.count})
            block, count = merging.get(value, (None, 0))
            if block is not None and count:
                self._merge(block, count, tokens)
        for node, index in stream.consumers:
            taken = node.inputs[index]
            assert taken is not None  # noqa: S101 - so is a reader found
            node.replace_input_with(index, self._restore(taken))
        for value in stream.outputs:
            self._restore_output(value)

    def _tokens_at(self, value: ir.Value, attention: AttentionSubgraph | None) -> _Tokens:
        if attention is not None:
            tokens = self._of[attention.query]
            if tokens.bias is not None:
                set_tokens(self._graph, attention, queries=tokens.count, keys=tokens.count)
                add_to_scores(self._graph, attention, tokens.bias, "token_sizes")
            return tokens
        node = value.producer()
        taken = [self._of[each] for each in (() if node is None else node.inputs) if each in self._of]
        if len({tokens.count for tokens in taken}) > 1:
            raise unmergeable("tokens of a block are added to those of a later one")
        return taken[0] if taken else _Tokens(self._stream.tokens)

    def _merge(self, block: EncoderBlock, count: int, tokens: _Tokens) -> None:
        value, attention = block.residual, block.attention
        users = list(value.uses())
        sets = TokenSets(tokens.count, self._stream.prefix, count)
        build = NodeBuilder(self._graph, f"{attention.name}.merge")
        width = attention.key.shape[2]  # type: ignore[index]
        assert isinstance(width, int)  # noqa: S101 - the stream has shapes
        metric = token_merging.mean_over_heads(build, attention.key, attention.heads, width)
        matching = token_merging.match(build, metric, sets)
        sizes = self._ones(build, value, tokens.count) if tokens.sizes is None else tokens.sizes
        merged, sizes = token_merging.merge(build, value, sizes, matching)
        merged.shape, merged.type = resized_shape(value.shape, {TOKEN_AXIS: sets.left}), value.type
        shape = build.constant("bias.shape", [-1, 1, 1, sets.left])
        bias = build.op("Reshape", [build.op("Log", [sizes], "sizes.log"), shape], "bias")
        bias.shape, bias.type = ir.Shape([value.shape[0], 1, 1, sets.left]), value.type  # type: ignore[index]
        places: ir.Value | None = None
        if self._stream.consumers or self._stream.outputs:
            places = token_merging.places_after(build, matching)
            if tokens.places is not None:
                places = token_merging.pick(build, places, tokens.places, "places.of_all")
        producer = value.producer()
        assert producer is not None  # noqa: S101 - a residual sum
        self._graph.insert_after(producer, build.nodes)
        for node, index in users:
            node.replace_input_with(index, merged)
        self._of[merged] = _Tokens(sets.left, sizes, bias, places)

    def _ones(self, build: NodeBuilder, value: ir.Value, count: int) -> ir.Value:
        """Return the sizes (B, n, 1) of tokens of which none was merged."""
        batch = build.op("Shape", [value], "batch", start=0, end=1)
        shape = build.op("Concat", [batch, build.constant("sizes.once", [1, 1])], "sizes.shape", axis=0)
        return build.op("Expand", [build.constant("ones", np.ones((1, count, 1), np.float32)), shape], "sizes.ones")

    def _restore(self, value: ir.Value) -> ir.Value:
        """Return ``value`` with a row for each of the first tokens again."""
        tokens = self._of[value]
        if tokens.places is None:
            return value
        if value not in self._restored:
            build = NodeBuilder(self._graph, f"{value.name}.unmerge")
            whole = token_merging.pick(build, value, tokens.places, "tokens")
            whole.shape, whole.type = resized_shape(value.shape, {TOKEN_AXIS: self._stream.tokens}), value.type
            producer = value.producer()
            assert producer is not None  # noqa: S101 - it is made of the images
            self._graph.insert_after(producer, build.nodes)
            self._restored[value] = whole
        return self._restored[value]

    def _restore_output(self, value: ir.Value) -> None:
        whole = self._restore(value)
        if whole is value:
            return
        index = self._graph.outputs.index(value)
        self._graph.outputs[index] = whole
        value.name, whole.name = f"{value.name}.merged", value.name
