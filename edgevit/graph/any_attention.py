"""Find attention in whatever form an exporter wrote it, by where values go (``graph.layout``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.graph.layout import Move, Origin, is_move, moved, origin_of, scaling
from edgevit.graph.shapes import sizes_at

ColumnIndices = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HeadColumns:
    """What query, key or value is: of tokens ``source``, the ``columns`` in their order, head by head.

    ``swapped`` if tokens come first there, not images; ``count`` is how many an image has.
    """

    source: ir.Value
    columns: ColumnIndices
    swapped: bool
    count: int
    heads: int

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.columns)


@dataclass(frozen=True, slots=True)
class AnyAttention:
    """An attention in whatever form; ``output`` holds what it gives, by tokens if ``swapped``, else by images."""

    softmax: ir.Node
    scores: ir.Node
    mixed: ir.Node
    query: HeadColumns
    key: HeadColumns
    value: HeadColumns
    scale: float
    output: ir.Value
    swapped: bool


def is_softmax(node: ir.Node) -> bool:
    """Say whether ``node`` is a softmax over the last axis of a value whose shape is known."""
    shape = node.outputs[0].shape if node.op_type == "Softmax" and not node.domain else None
    return shape is not None and node.attributes.get_int("axis", -1) in (-1, len(shape) - 1)


def any_attention(softmax: ir.Node, sizes: Sequence[int]) -> AnyAttention | None:
    """Return the attention that ``softmax`` is of, if it is one and nothing else takes part."""
    found, factor = softmax.inputs[0], 1.0
    while found is not None and (node := found.producer()) is not None and (scaled := scaling(node)) is not None:
        found, factor = scaled[0], factor * scaled[1]
    scores = None if found is None else found.producer()
    users = list(softmax.outputs[0].uses())
    if scores is None or scores.op_type != "MatMul" or len(users) != 1 or users[0][0].op_type != "MatMul":
        return None
    mixed, position = users[0]
    operands = (scores.inputs[0], scores.inputs[1], mixed.inputs[1])
    if position != 0 or None in operands:
        return None
    query, key, value = (_origin(operand) for operand in operands)
    tokens = (_tokens(query, sizes), _tokens(key, sizes, transposed=True), _tokens(value, sizes))
    ending = _ending(mixed, sizes)
    if ending is None or value.factor != 1 or tokens[0] is None or tokens[1] is None or tokens[2] is None:
        return None
    if len({each.heads for each in tokens if each is not None}) > 1:
        return None
    scale = factor * query.factor * key.factor
    return AnyAttention(softmax, scores, mixed, tokens[0], tokens[1], tokens[2], scale, *ending)


def _origin(value: ir.Value | None) -> Origin:
    assert value is not None  # noqa: S101 - the caller looks
    return origin_of(value)


def _tokens(origin: Origin, sizes: Sequence[int], *, transposed: bool = False) -> HeadColumns | None:
    """Return which columns of which tokens ``origin`` is, with heads apart, (B, h, N, d) or (B h, N, d)."""
    found = {_tokens_at(origin, size, transposed=transposed) for size in sizes}
    return found.pop() if len(found) == 1 else None


def _tokens_at(origin: Origin, batch: int, *, transposed: bool) -> HeadColumns | None:
    shape = sizes_at(origin.source, batch)
    places = None if shape is None or len(shape) < 2 else origin.places(shape)
    if shape is None or places is None or places.ndim < 3:
        return None
    if transposed:
        places = places.swapaxes(-1, -2)
    width, rows = shape[-1], int(np.prod(shape[:-1]))
    count, size = places.shape[-2:]
    if rows != batch * count or places.size % (batch * count * size):
        return None
    places = places.reshape(batch, -1, count, size)
    images, tokens = np.arange(batch)[:, None, None, None], np.arange(count)[None, None, :, None]
    columns = places[0, :, 0, :]
    if not np.array_equal(np.broadcast_to(columns[None, :, None, :] % width, places.shape), places % width):
        return None
    flat = tuple(int(each) for each in (columns % width).reshape(-1))
    for swapped, expected in ((False, images * count + tokens), (True, tokens * batch + images)):
        if np.array_equal(np.broadcast_to(expected, places.shape), places // width):
            return HeadColumns(origin.source, flat, swapped or _is_swapped(shape, batch), count, len(columns))
    return None


def _is_swapped(shape: tuple[int, ...], batch: int) -> bool:
    """Say whether tokens (N, 1, D) of one image, whose order does not tell, come first."""
    return batch == 1 and len(shape) == 3 and shape[0] != 1


def _ending(mixed: ir.Node, sizes: Sequence[int]) -> tuple[ir.Value, bool] | None:
    """Return the last value with the heads joined to tokens, and whether these come first there."""
    value, moves = mixed.outputs[0], []
    best = None
    while len(uses := list(value.uses())) == 1 and not value.is_graph_output():
        ((node, index),) = uses
        if index != 0 or not is_move(node) or len(node.outputs) != 1:
            break
        value = node.outputs[0]
        moves.append(Move(node, value))
        orders = {_order(mixed.outputs[0], value, tuple(moves), size) for size in sizes}
        order = orders.pop() if len(orders) == 1 else None
        best = best if order is None else (value, order)
    return best


def _order(mixed: ir.Value, value: ir.Value, moves: tuple[Move, ...], batch: int) -> bool | None:
    """Return whether ``value`` holds tokens first; None if it does not hold tokens, the heads joined."""
    shape, after = sizes_at(mixed, batch), sizes_at(value, batch)
    if shape is None or len(shape) < 3 or after is None or len(after) not in (2, 3):
        return None
    places = np.arange(int(np.prod(shape))).reshape(shape)
    joined = places.reshape(batch, -1, *shape[-2:]).transpose(0, 2, 1, 3)
    joined = joined.reshape(batch, shape[-2], -1)
    found = moved(places, moves)
    if found is None or found.shape[-1] != joined.shape[-1]:
        return None
    if np.array_equal(found.reshape(joined.shape), joined):
        return _is_swapped(after, batch)
    by_tokens = joined.transpose(1, 0, 2)
    return True if np.array_equal(found.reshape(by_tokens.shape), by_tokens) else None
