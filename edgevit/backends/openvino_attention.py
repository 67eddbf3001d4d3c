"""Keep OpenVINO from computing attention wrongly where one row of numbers is added to all scores.

OpenVINO makes one kernel of the scores, the softmax and the product with the values. On processors with AMX that kernel
gives wrong numbers, or none at all, if it multiplies in INT8 or BF16 and reads one row (1, 1, 1, N) for all heads and
queries, such as a mask of tokens that are padding: so it was seen with 2026.4.1. It is right with a row for each head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

#: What may lie between the product of query and key and the softmax: with two inputs that count, and with one.
_BINARY = frozenset(("Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum"))
_UNARY = frozenset(("Reshape", "Squeeze", "Unsqueeze", "Convert"))


class _RowReader(NamedTuple):
    """``node`` reads a row at its input ``position``, and scores (B, h, n, N) of these ``sizes`` at the other one."""

    node: Any
    position: int
    sizes: list[Any]


def repeat_score_rows(engine: Any, model: Any) -> int:  # noqa: ANN401 - the engine is imported at run time
    """Repeat, in place, each row that attention in OpenVINO's ``model`` reads for all of its scores; return how many.

    There is one for each head then, or for each query where there is one head; the numbers are the same. With one of
    both there is nothing to repeat it for: answers that are wrong then are found as those of any file are, by its
    golden images. A row for each image is repeated like one for all: a batch that is dynamic may become 1.
    """
    repeated: dict[tuple[str, int, tuple[int, ...]], Any] = {}  # attentions share a mask
    changed = 0
    for softmax in [node for node in model.get_ops() if node.get_type_name() == "Softmax"]:
        for node, position, sizes in list(_row_readers(softmax)):
            row, repeats = node.input_value(position), _repeats(sizes)
            if not repeats:
                continue
            key = (row.get_node().get_name(), row.get_index(), repeats)
            if key not in repeated:
                repeated[key] = engine.opset13.tile(row, list(repeats)).output(0)
            node.input(position).replace_source_output(repeated[key])
            changed += 1
    return changed


def _row_readers(softmax: Any) -> Iterator[_RowReader]:  # noqa: ANN401
    """Yield what reads a row between ``softmax`` and a product of two values; nothing where there is no product."""
    readers, products = [], 0
    seen, left = set(), [softmax.input_value(0).get_node()]
    while left:
        node = left.pop()
        kind, name = node.get_type_name(), node.get_name()  # which is unique, as the friendly name may not be
        products += kind == "MatMul"
        if kind not in _BINARY | _UNARY or name in seen:
            continue
        seen.add(name)
        inputs = [node.input_value(position) for position in range(1 + (kind in _BINARY))]
        left += [each.get_node() for each in inputs]
        row = next((position for position, each in enumerate(inputs) if len(inputs) == 2 and _is_row(each)), None)
        if row is not None and inputs[1 - row].get_partial_shape().rank.is_static:
            readers.append(_RowReader(node, row, list(inputs[1 - row].get_partial_shape())))
    if products:
        yield from readers


def _is_row(value: Any) -> bool:  # noqa: ANN401
    """Say whether ``value`` is longer than 1 along the last axis alone, but for a batch that is dynamic."""
    shape = value.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) == 0:
        return False
    *leading, last = shape
    return last != 1 and all(size == 1 or (axis == 0 and size.is_dynamic) for axis, size in enumerate(leading))


def _repeats(sizes: list[Any]) -> tuple[int, ...]:
    """Return how often a row is repeated along each axis of scores of ``sizes``; nothing if along none."""
    known = [axis for axis, size in enumerate(sizes[:-1]) if size.is_static and size != 1]
    if not known:
        return ()
    heads = len(sizes) - 3
    longest = heads if heads in known else known[-1]
    return tuple(size.get_length() if axis == longest else 1 for axis, size in enumerate(sizes))
