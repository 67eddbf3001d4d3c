"""Follow single values through operators that move them: whatever an exporter wrote, it is asked where each goes.

Exporters write the heads of an attention in many ways: Reshape, Transpose, Split, Gather, Slice and Squeeze, in any
order, tokens or images first. What they mean is the same: which value goes where. So the numbers 0, 1, 2... are moved
as the graph says, and what comes out is compared with what it should be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Move:
    """One operator that moves values, and the output of it that is followed."""

    node: ir.Node
    output: ir.Value


@dataclass(frozen=True, slots=True)
class Origin:
    """What a value is made of: ``source``, moved by ``moves`` in their order, and multiplied by ``factor``."""

    source: ir.Value
    moves: tuple[Move, ...]
    factor: float

    def places(self, shape: tuple[int, ...]) -> Indices | None:
        """Return for each place of the value which of the ``source`` of ``shape`` is there; None if it cannot be."""
        return moved(np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape), self.moves)


def origin_of(value: ir.Value) -> Origin:
    """Follow ``value`` back as far as values are moved, and multiplied by one number, only."""
    moves: list[Move] = []
    factor = 1.0
    while (node := value.producer()) is not None and not node.domain:
        scaled = scaling(node)
        if scaled is not None:
            value, factor = scaled[0], factor * scaled[1]
        elif node.op_type in _MOVERS and node.inputs[0] is not None:
            moves.append(Move(node, value))
            value = node.inputs[0]
        else:
            break
    return Origin(value, tuple(reversed(moves)), factor)


def scaling(node: ir.Node) -> tuple[ir.Value, float] | None:
    """Return what ``node`` multiplies by one number, and that number; None if it does anything else."""
    if node.op_type not in ("Mul", "Div") or node.domain:
        return None
    first, second = node.inputs
    for number, other, divides in ((second, first, node.op_type == "Div"), (first, second, False)):
        values = None if number is None else constant(number)
        if node.op_type == "Div" and not divides:
            return None
        if other is None or values is None or values.size != 1 or _grows(other, node.outputs[0]):
            continue
        factor = float(values.reshape(()))
        if factor and np.isfinite(factor):
            return other, 1 / factor if divides else factor
    return None


def _grows(before: ir.Value, after: ir.Value) -> bool:
    """Say whether the number has more axes than what it is multiplied with."""
    return before.shape is None or after.shape is None or len(before.shape) != len(after.shape)


def moved(places: Indices, moves: tuple[Move, ...]) -> Indices | None:
    """Return ``places`` as ``moves`` leave them; None where one of them cannot be done."""
    try:
        for move in moves:
            places = _MOVERS[move.node.op_type](places, move.node, move.output)
    except (ValueError, IndexError, TypeError, KeyError):  # what the graph asks for does not fit the shape
        return None
    return places


def constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Return what the file fixes ``value`` to; None for what is computed, or given."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def is_move(node: ir.Node) -> bool:
    """Say whether ``node`` moves values, and does nothing else."""
    return node.op_type in _MOVERS and not node.domain


def _identity(places: Indices, _node: ir.Node, _output: ir.Value) -> Indices:
    return places


def _transpose(places: Indices, node: ir.Node, _output: ir.Value) -> Indices:
    perm = list(node.attributes.get_ints("perm", [])) or None
    return places.transpose(perm)


def _reshape(places: Indices, node: ir.Node, _output: ir.Value) -> Indices:
    given = _integers(node, 1)
    keep = not node.attributes.get_int("allowzero", 0)
    shape = [places.shape[axis] if size == 0 and keep else size for axis, size in enumerate(given)]
    return places.reshape(shape)


def _split(places: Indices, node: ir.Node, output: ir.Value) -> Indices:
    axis, index = node.attributes.get_int("axis", 0), list(node.outputs).index(output)
    length = places.shape[axis]
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = _integers(node, 1)
    else:
        part = -(-length // len(node.outputs))
        sizes = [min(part, length - start) for start in range(0, length, part)]
    start = sum(sizes[:index])
    return places.take(range(start, start + sizes[index]), axis=axis)


def _slice(places: Indices, node: ir.Node, _output: ir.Value) -> Indices:
    starts, ends = _integers(node, 1), _integers(node, 2)
    axes = _integers(node, 3) if len(node.inputs) > 3 and node.inputs[3] is not None else range(len(starts))
    steps = _integers(node, 4) if len(node.inputs) > 4 and node.inputs[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise ValueError
        taken = range(places.shape[axis])[start:end:step]
        places = places.take(taken, axis=axis)
    return places


def _gather(places: Indices, node: ir.Node, _output: ir.Value) -> Indices:
    index = constant(node.inputs[1])
    if index is None:
        raise ValueError
    return places.take(index.astype(np.int64), axis=node.attributes.get_int("axis", 0))


def _squeeze(places: Indices, node: ir.Node, _output: ir.Value) -> Indices:
    return places.squeeze(tuple(_integers(node, 1)) if len(node.inputs) > 1 else None)


def _unsqueeze(places: Indices, node: ir.Node, _output: ir.Value) -> Indices:
    return np.expand_dims(places, tuple(_integers(node, 1)))


def _integers(node: ir.Node, index: int) -> list[int]:
    values = constant(node.inputs[index])
    if values is None:
        raise ValueError
    return [int(each) for each in values.reshape(-1)]


_MOVERS = {
    "Gather": _gather,
    "Identity": _identity,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
