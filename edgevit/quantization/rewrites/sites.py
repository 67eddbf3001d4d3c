"""Where each channel of a Linear layer's input can be shifted and scaled at no cost.

Let x be what Linear layers read, (..., K). With x' = (x - c) / s for each channel, W' = diag(s) W and b' = b + c W, the
layer gives the same: x'W' + b' = xW + b. It costs nothing where what makes x takes the shift and the scale into its
own constants. Two places do:

- a LayerNorm, whose weight becomes g / s and its bias (b - c) / s (SmoothQuant, Xiao et al. 2023; the shift as in
  Outlier Suppression+, Wei et al. 2023);
- the value projection, in front of the attention's output projection: each row of the attention weights adds up to 1,
  so that an average of shifted and scaled values is shifted and scaled by the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.attention import find_attentions
from edgevit.quantization.linears import LinearLayer, as_it_is_now, find_linears
from edgevit.quantization.rewrites.constants import set_constant, set_linear

Channels = NDArray[np.float32]  # (K,)


class Source(Protocol):
    """What makes the channels."""

    def move(self, graph: ir.Graph, scale: Channels, shift: Channels) -> None:
        """Make (x - shift) / scale of what was x."""
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """Linear layers that read the same channels, and what makes these; ``shiftable`` if all layers have a bias."""

    source: Source
    readers: tuple[LinearLayer, ...]

    @property
    def shiftable(self) -> bool:
        """Say whether all readers have a bias to take up a shift."""
        return all(reader.bias is not None for reader in self.readers)

    def move(self, graph: ir.Graph, scale: Channels, shift: Channels) -> None:
        """Shift and scale the channels: x becomes (x - shift) / scale, both (K,); what the layers give stays."""
        self.source.move(graph, scale, shift)
        for reader in map(as_it_is_now, self.readers):  # another site may have rewritten it
            bias = None
            if reader.bias is not None:
                bias = (reader.bias + shift.astype(np.float64) @ reader.weight).astype(np.float32)
            set_linear(graph, reader, scale[:, None] * reader.weight, bias)


@dataclass(frozen=True, slots=True)
class NormSource:
    """A LayerNormalization with constant weight and bias."""

    node: ir.Node

    def move(self, graph: ir.Graph, scale: Channels, shift: Channels) -> None:
        """Fold shift and scale into weight and bias."""
        weight = float_constant(self.node.inputs[1])
        bias = float_constant(self.node.inputs[2]) if len(self.node.inputs) > 2 else None
        assert weight is not None  # noqa: S101 - find_sites takes no other
        name = self.node.name or str(self.node.outputs[0].name)
        set_constant(graph, self.node, 1, f"{name}.weight", weight / scale)
        set_constant(graph, self.node, 2, f"{name}.bias", ((0 if bias is None else bias) - shift) / scale)


@dataclass(frozen=True, slots=True)
class ValueSource:
    """The outputs ``columns`` of a Linear layer that are an attention's values."""

    layer: LinearLayer
    columns: slice

    def move(self, graph: ir.Graph, scale: Channels, shift: Channels) -> None:
        """Fold shift and scale into these columns of weight and bias."""
        layer = as_it_is_now(self.layer)
        assert layer.bias is not None  # noqa: S101 - find_sites takes no other
        weight, bias = layer.weight.copy(), layer.bias.copy()
        weight[:, self.columns] /= scale
        bias[self.columns] = (bias[self.columns] - shift) / scale
        set_linear(graph, layer, weight, bias)


def find_sites(graph: ir.Graph) -> list[Site]:
    """Return the places of ``graph`` where channels can be shifted and scaled, in the order in which they run."""
    return [*norm_sites(graph), *_value_sites(graph, find_linears(graph))]


def norm_sites(graph: ir.Graph) -> Iterator[Site]:
    """Yield the places behind LayerNorms, in the order in which they run."""
    layers = {layer.product: layer for layer in find_linears(graph)}
    for node in graph:
        site = _norm_site(node, layers) if node.op_type == "LayerNormalization" else None
        if site is not None:
            yield site


def _norm_site(node: ir.Node, layers: dict[ir.Node, LinearLayer]) -> Site | None:
    weight = float_constant(node.inputs[1])
    bias_fits = len(node.inputs) < 3 or node.inputs[2] is None or float_constant(node.inputs[2]) is not None
    unread = all(not output.uses() and not output.is_graph_output() for output in node.outputs[1:])
    if weight is None or weight.ndim != 1 or not bias_fits or not unread:
        return None
    readers = list(_readers(node.outputs[0], layers))
    if not readers or None in readers:
        return None
    return Site(NormSource(node), tuple(reader for reader in readers if reader is not None))


def _readers(value: ir.Value, layers: dict[ir.Node, LinearLayer]) -> Iterator[LinearLayer | None]:
    """Yield the Linear layers that read the channels of ``value``, None for anything else that reads its values."""
    if value.is_graph_output():
        yield None
    for node, index in value.uses():
        if node in layers and index == 0:
            yield layers[node]
        elif index == 0 and keeps_channels(node):
            yield from _readers(node.outputs[0], layers)
        elif node.op_type != "Shape":
            yield None


def keeps_channels(node: ir.Node) -> bool:
    """Say whether ``node`` picks or averages tokens, and leaves the channels, the last axis, as they are."""
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    if shape is None:
        return False
    rank = len(shape)
    match node.op_type:
        case "Identity":
            return True
        case "Gather":
            index = node.inputs[1]
            within = index is not None and index.shape is not None and len(index.shape) <= 1
            return within and node.attributes.get_int("axis", 0) % rank < rank - 1
        case "Slice" if len(node.inputs) > 3:
            axes = _integers(node.inputs[3])
        case "Squeeze" | "ReduceMean" if len(node.inputs) > 1:
            axes = _integers(node.inputs[1])
        case _:
            return False
    return bool(axes) and all(axis % rank < rank - 1 for axis in axes)


def _value_sites(graph: ir.Graph, layers: Sequence[LinearLayer]) -> Iterator[Site]:
    by_output = {layer.output: layer for layer in layers}
    by_input = {layer.input: layer for layer in layers}
    for attention in find_attentions(graph):
        packed = attention.packed()
        source = by_output.get(attention.value if packed is None else packed)
        reader = by_input.get(attention.output)
        if source is None or reader is None or source.bias is None or len(attention.output.uses()) != 1:
            continue
        width = reader.weight.shape[0]
        outputs = source.weight.shape[1]
        private = len(source.output.uses()) == 1 and not source.output.is_graph_output()
        alone = packed is not None or outputs == width
        if private and alone and outputs >= width:
            yield Site(ValueSource(source, slice(outputs - width, outputs)), (reader,))


def float_constant(value: ir.Value | None) -> NDArray[np.float32] | None:
    """Return the float32 values that the file fixes ``value`` to; None for others, and what is given at run time."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.dtype != ir.DataType.FLOAT else tensor.numpy()


def _integers(value: ir.Value | None) -> list[int]:
    tensor = None if value is None or value.is_graph_input() else ir.convenience.get_const_tensor(value)
    return [] if tensor is None else [int(number) for number in np.ravel(tensor.numpy())]
