"""Which of a ViT's tokens are no patches: class token, distillation token, registers."""

from __future__ import annotations

from itertools import takewhile

import onnx_ir as ir

from edgevit.graph.row_wise import TOKEN_AXIS, is_row_wise, tokens_of
from edgevit.graph.shapes import made_of_images

_FROM_THE_END = TOKEN_AXIS - 3  # the axis of tokens in (B, N, D), counted from the end


def prefix_of(graph: ir.Graph, tokens: ir.Value) -> int | None:
    """Return how many rows of ``tokens`` (B, N, D) come before the patches, the same for all images.

    None if not all behind them are of patches, or it is not known. Values must have shapes.
    """
    rows = _rows(tokens, made_of_images(graph))
    if rows is None:
        return None
    prefix = len(list(takewhile(lambda of_patch: not of_patch, rows)))
    return prefix if all(rows[prefix:]) and prefix < len(rows) else None


def _rows(value: ir.Value | None, of_images: set[ir.Value | None]) -> list[bool] | None:
    """Return of each row of ``value`` (B, N, D) whether it is a patch's; None where that is not known."""
    count = tokens_of(value)
    node = None if value is None else value.producer()
    if count is None:
        return None
    if node is None or value not in of_images:
        return [value in of_images] * count
    if node.op_type == "Concat" and node.attributes.get_int("axis", 0) in (TOKEN_AXIS, _FROM_THE_END):
        parts = [_rows(each, of_images) for each in node.inputs]
        return None if None in parts else [row for part in parts for row in part or ()]
    if node.op_type == "Slice" and (bounds := _bounds(node)) is not None:
        whole = _rows(node.inputs[0], of_images)
        return None if whole is None else whole[slice(*bounds)]
    if is_row_wise(node) or node.op_type == "Add":  # of positions
        return _rows(next(each for each in node.inputs if each in of_images), of_images)
    return [True] * count


def _bounds(node: ir.Node) -> tuple[int, int] | None:
    """Return the first row that a Slice takes and the one behind the last, None where it takes others."""
    constants = [None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs[1:]]
    numbers = [constant.numpy().reshape(-1).tolist() for constant in constants if constant is not None]
    if len(numbers) < len(constants) or len(numbers) < 3:
        return None
    starts, ends, axes, *steps = numbers
    one = len(axes) == 1 and axes[0] in (TOKEN_AXIS, _FROM_THE_END) and steps in ([], [[1]])
    return (starts[0], ends[0]) if one else None
