"""Quantize before anything else is done to values, so that bytes are moved about, not floats.

In front of the patch embedding (``rewrites.patches``) that leaves one QuantizeLinear of the images, with a scale and a
zero point for each channel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.editing import add_constant, float_constant
from edgevit.graph.saving import put_in_order

_MOVING = ("Reshape", "Transpose")
_CHANNEL_AXIS = 1  # of images (B, C, H, W)

#: A zero point is an integer: what it differs by from the number that it should be is added, unless it is smaller than
#: this. No level that a pixel has is rounded to another then.
_NEGLECTED = 0.4


class HoistQuantizeLinear(ir.passes.InPlacePass):
    """Puts each QuantizeLinear with one scale in front of the Reshapes and Transposes whose values it alone reads.

    A Mul and an Add of a constant for each channel of images that come before these go into scale and zero point.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        moved = [node for node in list(model.graph) if _has_one_scale(node) and _move(node)]
        for node in moved:
            _scale_channels(model.graph, node)
        put_in_order(model.graph)
        return ir.passes.PassResult(model, modified=bool(moved))


def _has_one_scale(node: ir.Node) -> bool:
    return node.op_type == "QuantizeLinear" and (scale := float_constant(node.inputs[1])) is not None and not scale.ndim


def _move(quantize: ir.Node) -> bool:
    """Put ``quantize`` in front of what moves its values; say whether anything does."""
    path = list(_behind(quantize, _MOVING))
    if path:
        source, (quantized,) = path[-1].inputs[0], quantize.outputs
        assert source is not None  # noqa: S101 - what moves values has some
        quantized.replace_all_uses_with(path[0].outputs[0], replace_graph_outputs=True)
        quantize.replace_input_with(0, source)
        path[-1].replace_input_with(0, quantized)
        quantized.shape = source.shape
        for node in path:
            node.outputs[0].type = quantized.type
    return bool(path)


def _behind(node: ir.Node, operators: tuple[str, ...]) -> Iterator[ir.Node]:
    """Yield the nodes behind one another that make the values which ``node`` alone reads, the last first."""
    value = node.inputs[0]
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        maker = value.producer()
        if maker is None or maker.op_type not in operators or maker.domain:
            return
        yield maker
        value = maker.inputs[0]


def _scale_channels(graph: ir.Graph, quantize: ir.Node) -> None:
    """Quantize x itself where ``quantize`` reads a x + b: (a x + b) / s + z is x / (s / a) + (z + b / s)."""
    before = list(_behind(quantize, ("Add", "Mul")))
    if [node.op_type for node in before] != ["Add", "Mul"]:
        return
    factor, summand = (_of_channels(node.inputs[1]) for node in reversed(before))
    images, scale = before[1].inputs[0], float_constant(quantize.inputs[1])
    zero_point = None if quantize.inputs[2] is None else ir.convenience.get_const_tensor(quantize.inputs[2])
    if factor is None or summand is None or scale is None or zero_point is None or images is None:
        return
    kind = zero_point.numpy().dtype
    shift = summand / scale + zero_point.numpy()
    whole, limits = np.rint(shift), np.iinfo(kind)
    if not ((factor > 0).all() and (whole >= limits.min).all() and (whole <= limits.max).all()):
        return
    scales, left = scale / factor, shift - whole
    if (np.abs(left) > _NEGLECTED).any():
        added = (left * scales).reshape(-1, 1, 1).astype(np.float32)
        before[0].replace_input_with(0, images)
        before[0].replace_input_with(1, add_constant(graph, f"{quantize.name}.added", added))
    else:
        quantize.replace_input_with(0, images)
    quantize.replace_input_with(1, add_constant(graph, f"{quantize.name}.scales", scales.astype(np.float32)))
    quantize.replace_input_with(2, add_constant(graph, f"{quantize.name}.zero_points", whole.astype(kind)))
    quantize.attributes["axis"] = ir.AttrInt64("axis", _CHANNEL_AXIS)


def _of_channels(value: ir.Value | None) -> NDArray[np.float64] | None:
    """Return the constant (C, 1, 1) that ``value`` is as (C,) in float64, None for anything else."""
    constant = float_constant(value)
    if constant is None or constant.ndim != 3 or constant.shape[1:] != (1, 1):
        return None
    return constant.reshape(-1).astype(np.float64)
