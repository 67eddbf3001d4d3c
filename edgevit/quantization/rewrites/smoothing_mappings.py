"""Where each channel of a Linear layer's input can be shifted and scaled at no cost.

Let x be what Linear layers read, (..., K). With x' = (x - c) / s for each channel, W' = diag(s) W and b' = b + c W, the
layer gives the same: x'W' + b' = xW + b. It costs nothing where what makes x takes the shift and the scale into its
own constants. Three places do:

- a LayerNorm, whose weight becomes g / s and its bias (b - c) / s (SmoothQuant, Xiao et al. 2023; the shift as in
  Outlier Suppression+, Wei et al. 2023);
- the value projection, in front of the attention's output projection: each row of the attention weights adds up to 1,
  so that an average of shifted and scaled values is shifted and scaled by the same;
- what a gate multiplies, in front of a gated MLP's second layer: it can be scaled, and not shifted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.attention import find_value_paths
from edgevit.graph.editing import float_constant, set_constant, set_linear
from edgevit.graph.linears import LinearLayer, as_it_is_now, find_linears

ChannelScale = NDArray[np.float32]  # (K,)


class Producer(Protocol):
    """What makes the channels."""

    def smooth(self, graph: ir.Graph, scale: ChannelScale, shift: ChannelScale) -> None:
        """Make (x - shift) / scale of what was x."""
        ...


@dataclass(frozen=True, slots=True)
class SmoothingMapping:
    """Linear layers that read the same channels, and what makes these."""

    producer: Producer
    consumers: tuple[LinearLayer, ...]

    @property
    def shiftable(self) -> bool:
        """Say whether what makes the channels can shift them, and all consumers have a bias to take that up."""
        moved = not isinstance(self.producer, GatedProducer)
        return moved and all(consumer.bias is not None for consumer in self.consumers)

    def smooth(self, graph: ir.Graph, scale: ChannelScale, shift: ChannelScale) -> None:
        """Shift and scale the channels: x becomes (x - shift) / scale, both (K,); what the layers give stays."""
        self.producer.smooth(graph, scale, shift)
        for consumer in map(as_it_is_now, self.consumers):  # another mapping may have rewritten it
            bias = None
            if consumer.bias is not None:
                bias = (consumer.bias + shift.astype(np.float64) @ consumer.weight).astype(np.float32)
            set_linear(graph, consumer, scale[:, None] * consumer.weight, bias)


@dataclass(frozen=True, slots=True)
class NormProducer:
    """A LayerNormalization with constant weight and bias."""

    node: ir.Node

    def smooth(self, graph: ir.Graph, scale: ChannelScale, shift: ChannelScale) -> None:
        """Fold shift and scale into weight and bias."""
        weight = float_constant(self.node.inputs[1])
        bias = float_constant(self.node.inputs[2]) if len(self.node.inputs) > 2 else None
        assert weight is not None  # noqa: S101 - find_smoothing_mappings takes no other
        name = self.node.name or str(self.node.outputs[0].name)
        set_constant(graph, self.node, 1, f"{name}.weight", weight / scale)
        set_constant(graph, self.node, 2, f"{name}.bias", ((0 if bias is None else bias) - shift) / scale)


@dataclass(frozen=True, slots=True)
class ValueProducer:
    """The outputs ``columns`` of a Linear layer that are an attention's values."""

    layer: LinearLayer
    columns: slice

    def smooth(self, graph: ir.Graph, scale: ChannelScale, shift: ChannelScale) -> None:
        """Fold shift and scale into these columns of weight and bias."""
        layer = as_it_is_now(self.layer)
        assert layer.bias is not None  # noqa: S101 - find_smoothing_mappings takes no other
        weight, bias = layer.weight.copy(), layer.bias.copy()
        weight[:, self.columns] /= scale
        bias[self.columns] = (bias[self.columns] - shift) / scale
        set_linear(graph, layer, weight, bias)


@dataclass(frozen=True, slots=True)
class GatedProducer:
    """The outputs ``columns`` of a Linear layer that a gate multiplies; they are scaled, and never shifted."""

    layer: LinearLayer
    columns: slice

    def smooth(self, graph: ir.Graph, scale: ChannelScale, shift: ChannelScale) -> None:
        """Fold the scale into these columns of weight and bias."""
        assert not shift.any()  # noqa: S101 - its mappings are not shiftable
        ValueProducer(self.layer, self.columns).smooth(graph, scale, shift)


def find_smoothing_mappings(graph: ir.Graph) -> list[SmoothingMapping]:
    """Return the places of ``graph`` where channels can be shifted and scaled, in the order in which they run."""
    layers = find_linears(graph)
    return [*norm_mappings(graph), *_value_mappings(graph, layers), *_gated_mappings(layers)]


def norm_mappings(graph: ir.Graph) -> Iterator[SmoothingMapping]:
    """Yield the places behind LayerNorms, in the order in which they run."""
    layers = {layer.matmul: layer for layer in find_linears(graph)}
    for node in graph:
        mapping = _norm_mapping(node, layers) if node.op_type == "LayerNormalization" else None
        if mapping is not None:
            yield mapping


def _norm_mapping(node: ir.Node, layers: dict[ir.Node, LinearLayer]) -> SmoothingMapping | None:
    weight = float_constant(node.inputs[1])
    bias_fits = len(node.inputs) < 3 or node.inputs[2] is None or float_constant(node.inputs[2]) is not None
    unread = all(not output.uses() and not output.is_graph_output() for output in node.outputs[1:])
    if weight is None or weight.ndim != 1 or not bias_fits or not unread:
        return None
    consumers = list(_consumers(node.outputs[0], layers))
    if not consumers or None in consumers:
        return None
    return SmoothingMapping(NormProducer(node), tuple(consumer for consumer in consumers if consumer is not None))


def _consumers(value: ir.Value, layers: dict[ir.Node, LinearLayer]) -> Iterator[LinearLayer | None]:
    """Yield the Linear layers that read the channels of ``value``, None for anything else that reads its values."""
    if value.is_graph_output():
        yield None
    for node, index in value.uses():
        if node in layers and index == 0:
            yield layers[node]
        elif index == 0 and keeps_channels(node):
            yield from _consumers(node.outputs[0], layers)
        elif node.op_type != "Shape":
            yield None


def keeps_channels(node: ir.Node) -> bool:
    """Say whether ``node`` moves, picks or averages tokens, and leaves the channels, the last axis, as they are."""
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    if shape is None:
        return False
    rank = len(shape)
    match node.op_type:
        case "Identity":
            return True
        case "Transpose":
            return list(node.attributes.get_ints("perm", []))[-1:] == [rank - 1]
        case "Reshape":
            after = node.outputs[0].shape
            return after is not None and isinstance(shape[-1], int) and list(after)[-1:] == [shape[-1]]
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


def _value_mappings(graph: ir.Graph, layers: Sequence[LinearLayer]) -> Iterator[SmoothingMapping]:
    by_output = {layer.output: layer for layer in layers}
    by_input = {layer.input: layer for layer in layers}
    for path in find_value_paths(graph):
        packed = path.packed()
        source = by_output.get(path.value if packed is None else packed)
        consumer = by_input.get(path.output)
        if source is None or consumer is None or source.bias is None or len(path.output.uses()) != 1:
            continue
        width = consumer.weight.shape[0]
        outputs = source.weight.shape[1]
        private = len(source.output.uses()) == 1 and not source.output.is_graph_output()
        alone = packed is not None or outputs == width
        if private and alone and outputs >= width:
            yield SmoothingMapping(ValueProducer(source, slice(outputs - width, outputs)), (consumer,))


def _gated_mappings(layers: Sequence[LinearLayer]) -> Iterator[SmoothingMapping]:
    """Yield the places behind gates: a Linear layer's output in two halves, of which one multiplies the other."""
    by_output = {layer.output: layer for layer in layers}
    for consumer in layers:
        product = consumer.input.producer()
        if product is None or product.op_type != "Mul" or not _is_private(consumer.input):
            continue
        for factor in product.inputs:
            split = None if factor is None else factor.producer()
            if factor is None or split is None or split.op_type != "Split" or not _is_private(factor):
                continue
            source = by_output.get(split.inputs[0]) if split.inputs[0] is not None else None
            if source is None or source.bias is None or not _is_private(source.output) or len(split.outputs) != 2:
                continue
            half, outputs = consumer.weight.shape[0], source.weight.shape[1]
            last = split.attributes.get_int("axis", 0) in (-1, 2)
            if outputs == 2 * half and last and all(_width(output) == half for output in split.outputs):
                first = split.outputs[0] is factor
                columns = slice(0, half) if first else slice(half, outputs)
                yield SmoothingMapping(GatedProducer(source, columns), (consumer,))


def _is_private(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _width(value: ir.Value) -> int | None:
    size = value.shape[-1] if value.shape is not None and len(value.shape) == 3 else None
    return size if isinstance(size, int) else None


def _integers(value: ir.Value | None) -> list[int]:
    tensor = None if value is None or value.is_graph_input() else ir.convenience.get_const_tensor(value)
    return [] if tensor is None else [int(number) for number in np.ravel(tensor.numpy())]
