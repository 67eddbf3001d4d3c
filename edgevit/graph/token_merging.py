"""One step of token merging, in standard operators (ToMe, Bolya et al. 2023, section 3).

The patches' tokens are parted into two sets, A and B, in turns. Each of A finds the one of B that is most like it, by
the cosine of their metric. The ``count`` tokens of A that are most alike go into the ones that they found, each weighed
by how many patches it stands for; the others of A stay, and so do all of B.

What is added up goes through a product with a matrix of shares, most of them zero. It is small, and all engines have
it, where scattering with a sum is slow in some and missing in others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.editing import NodeBuilder
from edgevit.graph.node_facts import Role, mark_node
from edgevit.graph.row_wise import TOKEN_AXIS


@dataclass(frozen=True, slots=True)
class TokenSets:
    """How ``tokens`` are parted whose first ``prefix`` are never merged, and that ``count`` of A go into B.

    A has those in even places of all, as in the paper.
    """

    tokens: int
    prefix: int
    count: int

    @property
    def first_a(self) -> int:
        """The place of the first token of A."""
        return self.prefix + self.prefix % 2

    @property
    def first_b(self) -> int:
        """The place of the first token of B."""
        return self.prefix + 1 - self.prefix % 2

    @property
    def in_a(self) -> int:
        """How many tokens A has."""
        return len(range(self.first_a, self.tokens, 2))

    @property
    def in_b(self) -> int:
        """How many tokens B has."""
        return len(range(self.first_b, self.tokens, 2))

    @property
    def kept(self) -> int:
        """How many tokens of A stay."""
        return self.in_a - self.count

    @property
    def left(self) -> int:
        """How many tokens there are behind the step: the prefix, what stays of A, and B."""
        return self.tokens - self.count


@dataclass(frozen=True, slots=True)
class Matching:
    """Which of A go where, for one image each: int64 numbers (B, n, 1) of tokens within A, or within B.

    ``partner`` is the one of B that each of A found. ``order`` are those of A, the most alike first: as many as
    ``sets.count`` of them are merged.
    """

    sets: TokenSets
    partner: ir.Value
    order: ir.Value


def mean_over_heads(build: NodeBuilder, keys: ir.Value, heads: int, width: int) -> ir.Value:
    """Return the mean over ``heads`` (B, n, d) of ``keys`` (B, n, h * d), by which tokens are compared.

    Each head becomes a value of its own, for OpenVINO is slow to reduce an axis in the middle.
    """
    if heads == 1:
        return keys
    sizes = build.constant("key.sizes", [width // heads] * heads)
    return build.op("Mean", list(build.ops("Split", [keys, sizes], "key.heads", heads, axis=2)), "metric")


def match(build: NodeBuilder, metric: ir.Value, sets: TokenSets) -> Matching:
    """Add bipartite soft matching of ``metric`` (B, n, d), in float32 whatever the rest is in.

    Squares of keys may be more than float16 holds, and what is alike differs in the third digit.
    """
    first = len(build.nodes)
    unit = build.op("LpNormalization", [metric], "unit", axis=-1, p=2)
    a = take_every_second(build, unit, sets.first_a, "unit.a")
    b = take_every_second(build, unit, sets.first_b, "unit.b")
    similarity = build.op("MatMul", [a, build.op("Transpose", [b], "unit.b.turned", perm=[0, 2, 1])], "similarity")
    best, partner = build.ops("TopK", [similarity, build.constant("best_one", [1])], "partner", 2, axis=2)
    _, order = build.ops("TopK", [best, build.constant("all_of_a", [sets.in_a])], "order", 2, axis=TOKEN_AXIS)
    for node in build.nodes[first:]:
        mark_node(node, Role.MATCHING if node.op_type == "TopK" else Role.FLOAT32, build.prefix)
    return Matching(sets, partner, order)


def merge(build: NodeBuilder, tokens: ir.Value, sizes: ir.Value, matching: Matching) -> tuple[ir.Value, ir.Value]:
    """Return what is left of ``tokens`` (B, n, D), and for how many patches each stands, of ``sizes`` (B, n, 1)."""
    sets = matching.sets
    a, kept = _sorted(build, tokens, matching, "tokens")
    size_a, size_kept = _sorted(build, sizes, matching, "sizes")
    b, size_b = (
        take_every_second(build, value, sets.first_b, f"{name}.b")
        for value, name in ((tokens, "tokens"), (sizes, "sizes"))
    )
    gained = _gained(build, matching, size_a)
    total = build.op("ReduceSum", [gained, build.constant("sizes.axis", [2])], "sizes.gained", keepdims=1)
    size = build.op("Add", [size_b, total], "sizes.b.merged")
    # Shares, not sums, are multiplied: a sum of many tokens may be more than float16 holds.
    own = build.op("Mul", [b, build.op("Div", [size_b, size], "share.own")], "tokens.own")
    moved = build.op("MatMul", [build.op("Div", [gained, size], "share.moved"), a], "tokens.moved")
    left, left_sizes = [kept, build.op("Add", [own, moved], "tokens.mean")], [size_kept, size]
    if sets.prefix:
        left.insert(0, slice_tokens(build, tokens, 0, sets.prefix, "tokens.prefix"))
        left_sizes.insert(0, slice_tokens(build, sizes, 0, sets.prefix, "sizes.prefix"))
    return (
        build.op("Concat", left, "tokens", axis=TOKEN_AXIS),
        build.op("Concat", left_sizes, "sizes", axis=TOKEN_AXIS),
    )


def _sorted(build: NodeBuilder, value: ir.Value, matching: Matching, name: str) -> tuple[ir.Value, ir.Value]:
    """Return the tokens of A that are merged, the most alike first, and those that stay."""
    a = take_every_second(build, value, matching.sets.first_a, f"{name}.a")
    ordered = pick(build, a, matching.order, f"{name}.ordered")
    counts = build.constant(f"{name}.counts", [matching.sets.count, matching.sets.kept])
    merged, kept = build.ops("Split", [ordered, counts], f"{name}.parted", 2, axis=TOKEN_AXIS)
    return merged, kept


def places_after(build: NodeBuilder, matching: Matching) -> ir.Value:
    """Return where each token from before the step is behind it, int64 (B, n, 1)."""
    sets = matching.sets
    zeros = build.op("Sub", [matching.order, matching.order], "places.zeros")
    ranks = np.arange(sets.in_a).reshape(1, -1, 1)
    numbers = build.op("Add", [zeros, build.constant("places.ranks", ranks)], "places.numbers")
    rank = build.op("ScatterElements", [zeros, matching.order, numbers], "places.rank", axis=TOKEN_AXIS)
    is_merged = build.op("Less", [rank, build.constant("places.count", [sets.count])], "places.is_merged")
    shift = build.constant("places.of_kept", [sets.prefix - sets.count])
    of_kept = build.op("Add", [rank, shift], "places.kept")
    of_b = build.op("Add", [matching.partner, build.constant("places.first_b", [sets.prefix + sets.kept])], "places.b")
    of_a = build.op("Where", [is_merged, of_b, of_kept], "places.a")
    row = slice_tokens(build, zeros, 0, 1, "places.zero")
    fixed = np.concatenate([np.arange(sets.prefix), sets.prefix + sets.kept + np.arange(sets.in_b)])
    of_others = build.op("Add", [row, build.constant("places.fixed", fixed.reshape(1, -1, 1))], "places.others")
    together = build.op("Concat", [of_others, of_a], "places.unordered", axis=TOKEN_AXIS)
    return build.op("Gather", [together, build.constant("places.order", _order(sets))], "places", axis=TOKEN_AXIS)


def _order(sets: TokenSets) -> NDArray[np.int64]:
    """Return where each token is among the prefix, B and A put behind one another."""
    order = np.arange(sets.tokens)
    order[sets.first_b :: 2] = sets.prefix + np.arange(sets.in_b)
    order[sets.first_a :: 2] = sets.prefix + sets.in_b + np.arange(sets.in_a)
    return order


def _gained(build: NodeBuilder, matching: Matching, sizes: ir.Value) -> ir.Value:
    """Return the matrix (B, b, count) of the ``sizes`` (B, count, 1) that go from A into B, and zeros."""
    merged = slice_tokens(build, matching.order, 0, matching.sets.count, "merged")
    row = build.constant("row", [-1, 1, matching.sets.count])
    target = build.op("Reshape", [pick(build, matching.partner, merged, "target"), row], "target.row")
    numbers = build.constant("numbers_of_b", np.arange(matching.sets.in_b).reshape(1, -1, 1))
    is_target = build.op("Equal", [target, numbers], "is_target")
    row_of_sizes = build.op("Reshape", [sizes, row], "sizes.row")
    return build.op("Where", [is_target, row_of_sizes, build.constant("zero", 0.0)], "gained")


def take_every_second(build: NodeBuilder, value: ir.Value, first: int, name: str) -> ir.Value:
    """Return the tokens of ``value`` (B, n, ...) in every second place from ``first`` on."""
    return _slice(build, value, [first], [np.iinfo(np.int64).max], [2], name)


def slice_tokens(build: NodeBuilder, value: ir.Value, start: int, end: int, name: str) -> ir.Value:
    """Return the tokens of ``value`` (B, n, ...) from ``start`` to before ``end``."""
    return _slice(build, value, [start], [end], [1], name)


def _slice(
    build: NodeBuilder, value: ir.Value, start: list[int], end: list[int], step: list[int], name: str
) -> ir.Value:
    parts = [
        build.constant(f"{name}.{part}", each)
        for part, each in (("start", start), ("end", end), ("axis", [TOKEN_AXIS]), ("step", step))
    ]
    return build.op("Slice", [value, *parts], name)


def pick(build: NodeBuilder, value: ir.Value, numbers: ir.Value, name: str) -> ir.Value:
    """Return the tokens (B, k, ...) of ``value`` (B, n, ...) that ``numbers`` (B, k, 1) say, of each image its own."""
    return build.op("GatherND", [value, numbers], name, batch_dims=1)
