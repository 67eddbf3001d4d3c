"""Operators that put values in another shape or order, in torch: see ``torch_operators``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgevit.graph.torch_operands import (
    Operands,
    Operator,
    attribute_numbers,
    axes_of,
    optional,
    refused,
    required,
    whole_numbers,
)


def _reshape(node: ir.Node, inputs: Operands) -> Tensor:
    x, sizes = required(inputs, 0).tensor, whole_numbers(node, required(inputs, 1))
    if not node.attributes.get_int("allowzero", 0):
        sizes = [x.shape[index] if size == 0 else size for index, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(node: ir.Node, inputs: Operands) -> Tensor:
    x, axis = required(inputs, 0).tensor, node.attributes.get_int("axis", 1)
    first = int(np.prod(x.shape[: axis if axis >= 0 else x.ndim + axis], dtype=np.int64))
    return x.reshape(first, -1)


def _transpose(node: ir.Node, inputs: Operands) -> Tensor:
    x = required(inputs, 0).tensor
    return x.permute(attribute_numbers(node, "perm", range(x.ndim - 1, -1, -1)))


def _squeeze(node: ir.Node, inputs: Operands) -> Tensor:
    x = required(inputs, 0).tensor
    axes = axes_of(node, inputs, default=[axis for axis, size in enumerate(x.shape) if size == 1])
    gone = {axis % x.ndim for axis in axes}
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in gone])


def _unsqueeze(node: ir.Node, inputs: Operands) -> Tensor:
    x, axes = required(inputs, 0).tensor, axes_of(node, inputs)
    new, sizes = {axis % (x.ndim + len(axes)) for axis in axes}, iter(x.shape)
    return x.reshape([1 if axis in new else next(sizes) for axis in range(x.ndim + len(axes))])


def _expand(node: ir.Node, inputs: Operands) -> Tensor:
    x, sizes = required(inputs, 0).tensor, whole_numbers(node, required(inputs, 1))
    return x.expand(torch.broadcast_shapes(x.shape, sizes))


def _concat(node: ir.Node, inputs: Operands) -> Tensor:
    return torch.cat([each.tensor for each in inputs if each is not None], dim=node.attributes.get_int("axis"))


def _split(node: ir.Node, inputs: Operands) -> Sequence[Tensor]:
    x, axis = required(inputs, 0).tensor, node.attributes.get_int("axis", 0)
    sizes = attribute_numbers(node, "split", []) or whole_numbers(node, optional(inputs, 1), default=())
    each = -(-x.shape[axis] // len(node.outputs))
    return torch.split(x, sizes or each, dim=axis)


def _slice(node: ir.Node, inputs: Operands) -> Tensor:
    x, starts, ends = (
        required(inputs, 0).tensor,
        whole_numbers(node, required(inputs, 1)),
        whole_numbers(node, required(inputs, 2)),
    )
    axes = whole_numbers(node, optional(inputs, 3), default=range(len(starts)))
    steps = whole_numbers(node, optional(inputs, 4), default=[1] * len(starts))
    if min(steps) < 1:
        raise refused(node, "goes backwards")
    taken = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        taken[axis] = slice(*slice(start, end, step).indices(x.shape[axis]))
    return x[tuple(taken)]


def _gather(node: ir.Node, inputs: Operands) -> Tensor:
    x, indices, axis = required(inputs, 0).tensor, required(inputs, 1), node.attributes.get_int("axis", 0)
    axis, wanted = axis % x.ndim, whole_numbers(node, indices)
    before = (slice(None),) * axis
    wanted = [index % x.shape[axis] for index in wanted]
    if wanted == list(range(wanted[0], wanted[0] + len(wanted))):  # no engine needs indices for a range
        taken = x[(*before, slice(wanted[0], wanted[-1] + 1))]
    else:
        taken = torch.cat([x[(*before, slice(index, index + 1))] for index in wanted], dim=axis)
    return taken.reshape([*x.shape[:axis], *indices.tensor.shape, *x.shape[axis + 1 :]])


def _constant_of_shape(node: ir.Node, inputs: Operands) -> Tensor:
    value = node.attributes.get_tensor("value", None)
    number = np.zeros(1, np.float32) if value is None else value.numpy()
    return torch.from_numpy(np.full(whole_numbers(node, required(inputs, 0)), number.reshape(-1)[0]))


def _range(node: ir.Node, inputs: Operands) -> Tensor:
    return torch.arange(*(whole_numbers(node, required(inputs, index))[0] for index in range(3)))


LAYOUTS: dict[str, Operator] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Range": _range,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
