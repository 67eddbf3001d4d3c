"""Fold into a convolution what scales and shifts its channels, and add convolutions of the same values up.

BatchNormalization behind a Conv, and a Mul or an Add of a constant for each channel, go into its weight and bias. The
branches of RepVGG, MobileOne and FastViT in the form that they are trained in (a 3x3, a 1x1 and an identity, added up)
are one convolution (Ding et al. 2021), and so is a depthwise convolution plus what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.convolutions import Convolution, as_convolution, set_convolution
from edgevit.graph.editing import float_constant, set_constant
from edgevit.graph.patches import groups

_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Branch:
    """What convolves ``source``; ``node`` is its Conv, None where only channels are scaled and shifted.

    Each side of the ``weight`` (M, C / groups, ...kernel) is odd, and the output as large as strides make it.
    """

    source: ir.Value
    weight: _Array
    bias: _Array
    strides: tuple[int, ...]
    groups: int
    node: ir.Node | None


class FoldConvolutions(ir.passes.InPlacePass):
    """Makes one Conv of what is one.

    Weights are computed in float64. What the graph gives changes by the rounding of float32 alone.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        graph, changed = model.graph, False
        for node in list(graph):
            if node.domain in ("", "ai.onnx"):
                changed |= _fold_affine(graph, node) or _fold_into_norm(graph, node) or _add_up(graph, node)
        return ir.passes.PassResult(model, modified=changed)


def _fold_affine(graph: ir.Graph, node: ir.Node) -> bool:
    """Fold ``node`` into the convolution before it, if it scales and shifts what that gives; say whether it does."""
    for index in (0, 1) if node.op_type in ("Add", "Mul") else (0,):
        value = node.inputs[index] if index < len(node.inputs) else None
        convolution = None if value is None else as_convolution(value.producer())
        if value is None or convolution is None or not only_read_by(value, node):
            continue
        affine = _affine(node, 1 - index, convolution.weight.shape[0], convolution.weight.ndim)
        if affine is None:
            continue
        scale, shift = affine
        weight = convolution.weight * scale.reshape(-1, *[1] * (convolution.weight.ndim - 1))
        bias = scale * (0 if convolution.bias is None else convolution.bias) + shift
        if not fits_float32(weight, bias):
            return False
        set_convolution(graph, convolution.node, weight.astype(np.float32), bias.astype(np.float32))
        _take_over(graph, convolution.node, node)
        return True
    return False


def _fold_into_norm(graph: ir.Graph, node: ir.Node) -> bool:
    """Fold what ``node`` adds to the channels of a BatchNormalization into that; timm's exports add 0 to some."""
    for index in (0, 1) if node.op_type == "Add" else ():
        value = node.inputs[index]
        norm = None if value is None else value.producer()
        if value is None or norm is None or norm.op_type != "BatchNormalization" or not only_read_by(value, node):
            continue
        bias, added = float_constant(norm.inputs[2]), float_constant(node.inputs[1 - index])
        if bias is not None and added is not None and added.size == 1 and added.ndim <= 1:
            set_constant(graph, norm, 2, f"{norm.name}.bias", bias + added.reshape(()))
            _take_over(graph, norm, node)
            return True
    return False


def _affine(node: ir.Node, other: int, width: int, rank: int) -> tuple[_Array, _Array] | None:
    """Return scale and shift (M,) of what ``node`` does to each channel; ``other`` is its input beside the values."""
    ones, zeros = np.ones(width), np.zeros(width)
    if node.op_type == "BatchNormalization":
        return batch_norm(node, width)
    if node.op_type not in ("Add", "Mul"):
        return None
    constant = float_constant(node.inputs[other])
    if constant is None or not _is_per_channel(constant, width, rank):
        return None
    values = np.broadcast_to(constant.reshape(-1), width).astype(np.float64)
    return (values, zeros) if node.op_type == "Mul" else (ones, values)


def _is_per_channel(constant: NDArray[np.float32], width: int, rank: int) -> bool:
    """Say whether ``constant`` is a scalar, or one value for each of ``width`` channels of (B, C, ...)."""
    if constant.size == 1:
        return constant.ndim <= rank
    shape = (1,) * (rank - constant.ndim) + constant.shape
    return constant.ndim <= rank and shape == (1, width, *[1] * (rank - 2))


def batch_norm(node: ir.Node, width: int) -> tuple[_Array, _Array] | None:
    """Return scale and shift (M,) of what a BatchNormalization of ``width`` channels does, if they are constants."""
    if node.attributes.get_int("training_mode", 0) or len(node.inputs) != 5 or len(node.outputs) != 1:
        return None
    constants = [float_constant(value) for value in node.inputs[1:]]
    if any(each is None or each.shape != (width,) for each in constants):
        return None
    scale, shift, mean, variance = (np.asarray(each, dtype=np.float64) for each in constants)
    factor = scale / np.sqrt(variance + float(node.attributes.get_float("epsilon", 1e-5) or 0.0))
    return factor, shift - factor * mean


def _add_up(graph: ir.Graph, node: ir.Node) -> bool:
    """Put one convolution in the place of two branches of the same values that ``node`` adds or subtracts."""
    if node.op_type not in ("Add", "Sub") or len(node.inputs) != 2 or node.inputs[0] is node.inputs[1]:
        return False
    values = [value for value in node.inputs if value is not None]
    found = [_branch(value, node) for value in values]
    sources = {branch.source for branch in found if branch is not None and branch.node is not None}
    if len(sources) != 1:
        return False
    (source,) = sources
    branches = [
        _identity(found, source) if value is source else each for value, each in zip(values, found, strict=True)
    ]
    left, right = (_spread(each, branches) for each in branches)
    if left is None or right is None or not _alike(left, right):
        return False
    kernel = tuple(map(max, left.weight.shape[2:], right.weight.shape[2:]))
    sign = 1 if node.op_type == "Add" else -1
    weight = _widened(left.weight, kernel) + sign * _widened(right.weight, kernel)
    bias = left.bias + sign * right.bias
    if not fits_float32(weight, bias):
        return False
    kept = left.node or right.node
    assert kept is not None  # noqa: S101 - one of the two is a Conv: there is a source
    set_convolution(graph, kept, weight.astype(np.float32), bias.astype(np.float32))
    kept.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", kernel)
    half = [size // 2 for size in kernel]
    kept.attributes["pads"] = ir.AttrInt64s("pads", [*half, *half])
    _take_over(graph, kept, node)
    return True


def _branch(value: ir.Value, reader: ir.Node) -> _Branch | None:
    """Return the branch that gives ``value``, which ``reader`` alone reads."""
    producer = value.producer()
    if producer is None or not only_read_by(value, reader):
        return None
    convolution = as_convolution(producer)
    if convolution is not None:
        return _of_convolution(convolution)
    source = producer.inputs[0] if producer.op_type == "BatchNormalization" else None
    scale = None if source is None else float_constant(producer.inputs[1])
    affine = None if scale is None else batch_norm(producer, scale.size)
    if source is None or affine is None:
        return None
    factor, shift = affine
    return _Branch(source, factor.reshape(-1, 1, 1, 1), shift, (1, 1), len(factor), None)


def _of_convolution(convolution: Convolution) -> _Branch | None:
    attributes, kernel = convolution.node.attributes, convolution.weight.shape[2:]
    half = [size // 2 for size in kernel]
    centred = list(attributes.get_ints("pads", [0] * 2 * len(kernel)) or []) == [*half, *half]
    plain = set(attributes.get_ints("dilations", (1,)) or (1,)) == {1}
    if not (centred and plain and all(size % 2 for size in kernel)) or len(kernel) != 2:
        return None
    if attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    bias = np.zeros(len(convolution.weight)) if convolution.bias is None else convolution.bias.astype(np.float64)
    strides = tuple(attributes.get_ints("strides", (1, 1)) or (1, 1))
    weight = convolution.weight.astype(np.float64)
    return _Branch(convolution.input, weight, bias, strides, groups(convolution.node), convolution.node)


def _identity(branches: list[_Branch | None], source: ir.Value) -> _Branch | None:
    """Return the branch that gives ``source`` itself, for a depthwise convolution beside it.

    What others add to what they read is the sum that their quantization leaves in float.
    """
    beside = next(branch for branch in branches if branch is not None and branch.node is not None)
    width = len(beside.weight)
    if beside.groups != width:
        return None
    return _Branch(source, np.ones((width, 1, 1, 1)), np.zeros(width), (1, 1), width, None)


def _spread(branch: _Branch | None, branches: list[_Branch | None]) -> _Branch | None:
    """Return ``branch`` in the groups of the Conv among ``branches``, if it scales each channel by itself."""
    beside = next(each for each in branches if each is not None and each.node is not None)
    per_group = beside.weight.shape[1]
    if branch is None or branch.node is not None or beside.groups * per_group != branch.groups:
        return branch
    weight = np.zeros((branch.groups, per_group, 1, 1))
    channels = np.arange(branch.groups)
    weight[channels, channels % per_group] = branch.weight[:, 0]
    return replace(branch, weight=weight, groups=beside.groups)


def _alike(left: _Branch, right: _Branch) -> bool:
    """Say whether both convolve the same values, channel by channel group, at the same places."""
    return (
        left.source is right.source
        and left.strides == right.strides
        and left.groups == right.groups
        and left.weight.shape[:2] == right.weight.shape[:2]
    )


def _widened(weight: _Array, kernel: tuple[int, ...]) -> _Array:
    """Return ``weight`` in the middle of a kernel of that size, with zeros around it."""
    margins = [((wide - size) // 2,) * 2 for wide, size in zip(kernel, weight.shape[2:], strict=True)]
    return np.pad(weight, [(0, 0), (0, 0), *margins])


def fits_float32(*arrays: _Array) -> bool:
    """Say whether all values are in float32's range."""
    most = float(np.finfo(np.float32).max)
    return all(bool((np.abs(each) <= most).all()) for each in arrays)


def only_read_by(value: ir.Value, reader: ir.Node) -> bool:
    """Say whether ``reader`` reads ``value``, once, and nothing else does."""
    return not value.is_graph_output() and [user for user, _ in value.uses()] == [reader]


def _take_over(graph: ir.Graph, kept: ir.Node, node: ir.Node) -> None:
    """Let ``kept`` give what ``node`` gave, which is not needed any more."""
    output = kept.outputs[0]
    output.shape, output.type = node.outputs[0].shape, node.outputs[0].type
    ir.convenience.replace_nodes_and_values(graph, node, [node], [], [node.outputs[0]], [output])
