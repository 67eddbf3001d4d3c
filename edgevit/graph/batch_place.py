"""Where the batch lies in the values of a graph that was traced with one image: their shapes show a 1 at most."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import onnx_ir as ir


class BatchPlace(NamedTuple):
    """The axis that the batch is, or is a factor of, and how many numbers of the axis lie before it; 1: outermost."""

    axis: int
    before: int = 1


def places_of_batch(graph: ir.Graph, images: ir.Value) -> dict[ir.Value, BatchPlace]:
    """Return where the batch lies in what is made of ``images``, by the shapes of ``graph`` for one image.

    It is first in ``images``. What an operator does that is not known here, or takes the batch away, has no place.
    """
    found = {images: BatchPlace(0)}
    for node in graph:
        tracked = next(
            ((k, value) for k, value in enumerate(node.inputs) if value is not None and value in found), None
        )
        if tracked is None or node.op_type in ("Shape", "Size") or node.domain:
            continue
        index, value = tracked
        for output in node.outputs:
            place = _behind(node, index, found[value], _sizes(value), _sizes(output))
            if place is not None:
                found[output] = place
    return found


def reshaped(place: BatchPlace, given: Sequence[int], sizes: Sequence[int]) -> BatchPlace:
    """Return where the batch lies after a reshape of ``given`` sizes, for one image, to ``sizes``.

    Where no axis of 1 is left for it, it is a factor of one beside it: of the next, as heads are, but for the last
    axis, which a Linear layer reads, of the one before.
    """
    before = prod(given[: place.axis]) * place.before
    starts = [prod(sizes[:axis]) for axis in range(len(sizes))]
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        if start == before and size == 1:
            return BatchPlace(axis)
    last = len(sizes) - 1
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        if axis and axis == last and start == before:
            return BatchPlace(axis - 1, sizes[axis - 1])
        if start <= before < start * size:
            return BatchPlace(axis, before // start)
    return BatchPlace(last, before // starts[last])


def _behind(
    node: ir.Node, index: int, place: BatchPlace, given: list[int] | None, sizes: list[int] | None
) -> BatchPlace | None:
    """Return where the batch lies in what ``node`` makes of its input ``index`` of ``given`` sizes."""
    if given is None or sizes is None:
        return None
    axis, rank, more = place.axis, len(given), len(sizes) - len(given)
    match node.op_type:
        case "Transpose":
            order = node.attributes.get_ints("perm", tuple(reversed(range(rank))))
            return place._replace(axis=list(order).index(axis))
        case "Reshape" | "Flatten":
            return reshaped(place, given, sizes) if index == 0 else None
        case "Squeeze" | "Unsqueeze" | "ReduceMean" | "ReduceSum" | "ReduceMax":
            return _without_axes(node, place, len(sizes), rank)
        case "Gather":
            at = node.attributes.get_int("axis", 0) % rank
            return None if index or at == axis else place._replace(axis=axis + more * (at < axis))
        case "MatMul" if axis == rank - (2 if index else 1):
            return None  # it is added over
        case _:
            return place._replace(axis=axis + more) if more >= 0 else None


def _without_axes(node: ir.Node, place: BatchPlace, rank_after: int, rank: int) -> BatchPlace | None:
    """Return where the batch lies after axes have been taken away, or added."""
    if rank_after == rank:
        return place
    longer = max(rank, rank_after)
    second = node.inputs[1] if len(node.inputs) > 1 else None
    given = None if second is None else ir.convenience.get_const_tensor(second)
    named = [int(axis) for axis in np.ravel(given.numpy())] if given else list(node.attributes.get_ints("axes", ()))
    axes = {axis % longer for axis in named}
    kept = [axis for axis in range(longer) if axis not in axes]
    if len(kept) != min(rank, rank_after) or (rank_after < rank and place.axis in axes):
        return None
    return place._replace(axis=kept[place.axis] if rank_after > rank else kept.index(place.axis))


def _sizes(value: ir.Value) -> list[int] | None:
    return None if value.shape is None or not value.shape.is_static() else [int(size) for size in value.shape.numpy()]
