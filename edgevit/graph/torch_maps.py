"""Convolutions, pooling and resizing, in torch: see ``torch_operators``."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgevit.graph.torch_operands import (
    Operands,
    Operator,
    attribute_numbers,
    optional,
    refused,
    required,
    whole_numbers,
)

#: ONNX's names for how Resize finds its places, to torch's for the same.
_LINEAR, _CUBIC = {3: "linear", 4: "bilinear"}, {4: "bicubic"}
_HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")
_CUBIC_A = -0.75  # torch's


def pads_of(node: ir.Node, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return what a convolution or pooling of input ``sizes`` adds before and behind each axis."""
    strides = attribute_numbers(node, "strides", [1] * len(kernel))
    dilations = attribute_numbers(node, "dilations", [1] * len(kernel))
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto == "VALID":
        return [0] * len(kernel), [0] * len(kernel)
    if auto != "NOTSET":
        before, behind = [], []
        for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
            whole = max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
            less, more = whole // 2, whole - whole // 2
            before.append(less if auto == "SAME_UPPER" else more)
            behind.append(more if auto == "SAME_UPPER" else less)
        return before, behind
    pads = attribute_numbers(node, "pads", [0] * (2 * len(kernel)))
    return pads[: len(kernel)], pads[len(kernel) :]


def padded(x: Tensor, before: Sequence[int], behind: Sequence[int], value: float = 0.0) -> Tensor:
    """Return ``x`` with so many of ``value`` added at its last axes."""
    pairs = [each for pair in zip(reversed(before), reversed(behind), strict=True) for each in pair]
    return functional.pad(x, pairs, value=value)


def _conv_transpose(node: ir.Node, inputs: Operands) -> Tensor:
    x, weight, bias = required(inputs, 0).tensor, required(inputs, 1).tensor, optional(inputs, 2)
    axes = weight.ndim - 2
    before, behind = pads_of(node, x.shape[2:], weight.shape[2:])
    if before != behind or "output_shape" in node.attributes or axes not in (1, 2):
        raise refused(node, "pads one side more than the other, or names its output's shape")
    convolve = functional.conv_transpose1d if axes == 1 else functional.conv_transpose2d
    return convolve(
        x,
        weight,
        None if bias is None else bias.tensor,
        stride=attribute_numbers(node, "strides", [1] * axes),
        padding=before,
        output_padding=attribute_numbers(node, "output_padding", [0] * axes),
        groups=node.attributes.get_int("group", 1),
        dilation=attribute_numbers(node, "dilations", [1] * axes),
    )


def _average_pool(node: ir.Node, inputs: Operands) -> Tensor:
    x, kernel = required(inputs, 0).tensor, list(node.attributes.get_ints("kernel_shape"))
    before, behind = pads_of(node, x.shape[2:], kernel)
    counted = bool(node.attributes.get_int("count_include_pad", 0)) or not any(before)
    ceil = bool(node.attributes.get_int("ceil_mode", 0))
    if before != behind or len(kernel) != 2 or set(attribute_numbers(node, "dilations", [1, 1])) != {1}:
        raise refused(node, "pads one side more than the other, or is not of two axes")
    strides = attribute_numbers(node, "strides", [1, 1])
    return functional.avg_pool2d(x, kernel, strides, before, ceil_mode=ceil, count_include_pad=counted)


def _max_pool(node: ir.Node, inputs: Operands) -> Tensor:
    x, kernel = required(inputs, 0).tensor, list(node.attributes.get_ints("kernel_shape"))
    if len(kernel) != 2 or len(node.outputs) > 1:
        raise refused(node, "is not of two axes, or gives indices")
    x = padded(x, *pads_of(node, x.shape[2:], kernel), value=-torch.inf)
    dilations = attribute_numbers(node, "dilations", [1, 1])
    ceil = bool(node.attributes.get_int("ceil_mode", 0))
    return functional.max_pool2d(x, kernel, attribute_numbers(node, "strides", [1, 1]), 0, dilations, ceil_mode=ceil)


def _global_average_pool(_: ir.Node, inputs: Operands) -> Tensor:
    x = required(inputs, 0).tensor
    return x.mean(dim=list(range(2, x.ndim)), keepdim=True)


def _pad(node: ir.Node, inputs: Operands) -> Tensor:
    x, pads, value = required(inputs, 0).tensor, whole_numbers(node, required(inputs, 1)), optional(inputs, 2)
    axes = whole_numbers(node, optional(inputs, 3), default=range(x.ndim))
    before, behind = [0] * x.ndim, [0] * x.ndim
    for index, axis in enumerate(axes):
        before[axis], behind[axis] = pads[index], pads[index + len(axes)]
    mode = node.attributes.get_string("mode", "constant")
    if mode != "constant" or (value is not None and value.array is None):
        raise refused(node, f"pads by '{mode}'")
    return padded(x, before, behind, 0.0 if value is None or value.array is None else float(value.array))


def _resize(node: ir.Node, inputs: Operands) -> Tensor:
    x, scales, sizes = required(inputs, 0).tensor, optional(inputs, 2), optional(inputs, 3)
    if sizes is not None:
        wanted = whole_numbers(node, sizes)
    elif scales is not None and scales.array is not None:
        wanted = [int(size * float(scale)) for size, scale in zip(x.shape, scales.array, strict=True)]
    else:
        raise refused(node, "takes sizes that depend on the image")
    mode = _resize_mode(node, x.ndim)
    if "axes" in node.attributes or mode is None or tuple(wanted[:2]) != tuple(x.shape[:2]):
        raise refused(node, "resizes in a way that torch does not have")
    aligned = node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "align_corners"
    return functional.interpolate(x, wanted[2:], mode=mode, align_corners=aligned if "linear" in mode else None)


def _resize_mode(node: ir.Node, rank: int) -> str | None:
    """Return torch's name for what a Resize does; None if it has none."""
    get = node.attributes.get_string
    mode, places = get("mode", "nearest"), get("coordinate_transformation_mode", "half_pixel")
    if node.attributes.get_int("antialias", 0) or node.attributes.get_int("exclude_outside", 0):
        return None
    if mode == "nearest":
        usual = places == "asymmetric" and get("nearest_mode", "round_prefer_floor") == "floor"
        return "nearest" if usual else None
    if mode == "cubic":
        own = node.attributes.get_float("cubic_coeff_a", _CUBIC_A) == _CUBIC_A and places in _HALF_PIXEL
        return _CUBIC.get(rank) if own else None
    return _LINEAR.get(rank) if mode == "linear" and places in (*_HALF_PIXEL, "align_corners") else None


MAPS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global_average_pool,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Resize": _resize,
}
