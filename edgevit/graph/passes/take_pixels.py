"""Give a graph pixels as its input, which its patch embedding normalises by the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.data.preprocess import Preprocess
from edgevit.errors import GraphError
from edgevit.graph.patches import groups, pads
from edgevit.graph.saving import tidy

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_RANK = 4  # of images and of a Conv's weight
_SAME_LEVEL = 0.01  # float32 leaves a level of 255 less than 1e-4 of it away
_REMEDY = "export the model with `edgevit export`, or leave INPUT float32-nchw"


class TakePixels(ir.passes.InPlacePass):
    """Turns an input of normalised float32 images (B, C, H, W) into one of uint8 pixels (B, H, W, C).

    To normalise is linear, and so is the Conv that reads the images: with the mean m and the deviation s of each
    channel, W (x / 255 - m) / s + b is W / (255 s) x + (b - sum(W m / s)). Both constants are computed in float64:
    the logits differ by rounding alone. A Conv that pads cannot do it, as its zeros are the mean of images, but black
    pixels. One in float16 becomes float32: such small weights have few digits left in float16.

    Where the images are made pixels again, as in front of a quantized patch embedding, the pixels take their place.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self._preprocess = preprocess

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph.

        Raises:
            GraphError: if the images go elsewhere than into one Conv that can do it, or have other channels than the
                preprocessing; the graph is as it was then.

        """
        graph = model.graph
        images = _images(graph)
        consumers = list(_consumers(images))
        levels = self._levels([node for node in consumers if node.op_type != "Shape"])
        if levels is not None:
            planes = _as_planes(graph, images, _type_of_levels(levels))
            levels.replace_all_uses_with(planes)
        else:
            conv = _only_conv(graph, consumers)
            weight, bias = self._normalising(conv)
            if conv.inputs[0] is not images:  # which the emitter of FP16 writes as float16 between two Casts
                _keep_output_type(graph, conv)
            planes = _as_planes(graph, images)
            conv.resize_inputs(3)
            for index, (role, values) in enumerate((("weight", weight), ("bias", bias)), start=1):
                conv.replace_input_with(index, _constant(graph, f"{conv.name}.{role}.pixels", values))
        for consumer in consumers:
            consumer.replace_input_with(0, planes)
        tidy(model)
        return ir.passes.PassResult(model, modified=True)

    def _levels(self, looking: list[ir.Node]) -> ir.Value | None:
        """Return the value that is the pixels 0..255 again, if all that is made of the images is that.

        It is found by computing it for every pixel that there is.
        """
        pixels = np.arange(256)
        with np.errstate(over="ignore", invalid="ignore"):  # is seen where it matters
            ramp = np.tile(pixels.astype(np.uint8)[None, :, None], self._preprocess.channels)
            values: NDArray[Any] = self._preprocess.normalize(ramp)
        found = None
        while len(looking) == 1:
            (output,) = looking[0].outputs
            computed = _computed(looking[0], values)
            if computed is None or output.is_graph_output():
                break
            values = computed
            found = output if np.abs(values - pixels).max() < _SAME_LEVEL else found
            looking = list(output.consumers())
        return found

    def _normalising(self, conv: ir.Node) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the weight and the bias with which ``conv`` normalises the pixels itself."""
        weight, *rest = (_values(conv, value) for value in conv.inputs[1:] if value is not None)
        if weight.ndim != _RANK or weight.shape[1] != self._preprocess.channels:
            raise _refused(f"'{conv.name}' does not take images of {self._preprocess.channels} channels")
        mean = np.asarray(self._preprocess.mean, dtype=np.float64)[:, None, None]
        deviation = np.asarray(self._preprocess.std, dtype=np.float64)[:, None, None]
        with np.errstate(over="ignore", invalid="ignore"):  # is seen below
            taken_off = (weight * mean / deviation).sum(axis=(1, 2, 3))
            scaled = (weight / (255 * deviation)).astype(np.float32)
            shifted = (sum(rest) - taken_off).astype(np.float32)
        if not (np.isfinite(scaled).all() and np.isfinite(shifted).all()):
            raise _refused(f"'{conv.name}' does not fit float32 with the deviations {self._preprocess.std}")
        return scaled, shifted


def _images(graph: ir.Graph) -> ir.Value:
    """Return the input of a graph, which must be float32 images (B, C, H, W)."""
    inputs = [value for value in graph.inputs if not value.is_initializer()]
    if [value.dtype for value in inputs] == [ir.DataType.FLOAT]:
        (images,) = inputs
        if images.shape is not None and len(images.shape) == _RANK and not images.is_graph_output():
            return images
    raise _refused("the model's input is not float32 images (B, C, H, W) alone")


def _consumers(images: ir.Value) -> Iterator[ir.Node]:
    """Yield what reads ``images``, also as another type of float."""
    for node in images.consumers():
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) in _FLOATS:
            if node.outputs[0].is_graph_output():
                raise _refused("the images are an output of the model")
            yield from _consumers(node.outputs[0])
        else:
            yield node


def _only_conv(graph: ir.Graph, consumers: list[ir.Node]) -> ir.Node:
    """Return the Conv that is the only one of ``consumers`` to look at more than the shape of the images."""
    looking = [node for node in consumers if node.op_type != "Shape"]
    found = [node.op_type for node in looking]
    if found != ["Conv"] or looking[0].graph is not graph:
        raise _refused(f"the images go into {' and '.join(found) or 'nothing'}, not into one Conv of the graph")
    (conv,) = looking
    if groups(conv) != 1:
        raise _refused(f"'{conv.name}' takes channels apart, in groups")
    if pads(conv):
        raise _refused(f"'{conv.name}' pads the images")
    return conv


def _values(conv: ir.Node, value: ir.Value) -> NDArray[np.float64]:
    """Return the constant that an input of ``conv`` is, or is made of by a Cast to float32."""
    cast = value.producer()
    widened = cast is not None and cast.op_type == "Cast" and cast.attributes.get_int("to", 0) == ir.DataType.FLOAT
    if cast is not None and widened and cast.inputs[0] is not None:
        value = cast.inputs[0]
    tensor = value.const_value
    constant = tensor is not None and value.is_initializer() and not value.is_graph_input()
    if tensor is None or not constant or tensor.dtype not in _FLOATS or isinstance(tensor, ir.ExternalTensor):
        raise _refused(f"'{conv.name}' has a weight or bias that is not a constant in the file, float32 or float16")
    return tensor.numpy().astype(np.float64)


def _computed(node: ir.Node, values: NDArray[Any]) -> NDArray[Any] | None:
    """Return what ``node`` makes of ``values`` (C, 1, N) by constants for each channel, None if anything else."""
    constants = [_of_channels(value, len(values)) for value in node.inputs[1:]]
    if not constants or any(each is None for each in constants):
        return None
    first, *rest = (np.asarray(each) for each in constants)
    computed: NDArray[Any] | None = None
    with np.errstate(all="ignore"):  # what comes of odd constants is not the pixels
        match node.op_type:
            case "Mul":
                computed = values * first
            case "Add":
                computed = values + first
            case "QuantizeLinear" if rest and node.attributes.get_int("axis", 1) == 1:
                limits = np.iinfo(rest[0].dtype)
                computed = np.clip(np.rint(values / first) + rest[0], limits.min, limits.max)
    return computed


def _type_of_levels(levels: ir.Value) -> ir.DataType:
    """Return the type of 0..255, which of integers uint8 alone holds; files of others may not say it."""
    maker = levels.producer()
    quantized = maker is not None and maker.op_type == "QuantizeLinear"
    return ir.DataType.UINT8 if quantized else ir.DataType.FLOAT


def _of_channels(value: ir.Value | None, channels: int) -> NDArray[Any] | None:
    """Return a constant for all of the channels, or for each of them, as (C, 1, 1) or (1, 1, 1)."""
    tensor = None if value is None or value.is_graph_input() else ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.size not in (1, channels) else tensor.numpy().reshape(-1, 1, 1)


def _keep_output_type(graph: ir.Graph, conv: ir.Node) -> None:
    """Make ``conv``, which is to compute in float32, hand on the type that it took its images in."""
    cast = conv.inputs[0].producer() if conv.inputs[0] is not None else None
    kind = ir.DataType.FLOAT if cast is None else ir.DataType(cast.attributes.get_int("to", ir.DataType.FLOAT))
    if kind == ir.DataType.FLOAT:
        return
    (output,) = conv.outputs
    back = ir.node("Cast", [output], {"to": int(kind)}, name=f"{conv.name}.cast")
    (handed_on,) = back.outputs
    output.replace_all_uses_with(handed_on, replace_graph_outputs=True)
    back.replace_input_with(0, output)
    handed_on.name, handed_on.shape, handed_on.dtype = output.name, output.shape, kind
    output.name, output.type = f"{output.name}.float32", ir.TensorType(ir.DataType.FLOAT)
    graph.append(back)


def _as_planes(graph: ir.Graph, images: ir.Value, kind: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    """Make pixels of the input ``images``, and return them as (B, C, H, W), uint8 or another type."""
    assert images.shape is not None  # noqa: S101 - ``_images`` has looked
    batch, channels, height, width = images.shape
    name, levels = str(images.name), images
    if kind != ir.DataType.UINT8:
        cast = ir.node("Cast", [images], {"to": int(kind)}, name=f"{name}.cast")
        (levels,) = cast.outputs
        levels.name = f"{name}.levels"
        graph.append(cast)
    transpose = ir.node("Transpose", [levels], {"perm": [0, 3, 1, 2]}, name=f"{name}.transpose")
    (planes,) = transpose.outputs
    planes.name, planes.shape, planes.dtype = f"{name}.planes", images.shape, kind
    images.shape, images.type = ir.Shape([batch, height, width, channels]), ir.TensorType(ir.DataType.UINT8)
    graph.append(transpose)
    return planes


def _constant(graph: ir.Graph, name: str, values: NDArray[np.float32]) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.Tensor(values, name=name), shape=ir.Shape(values.shape))
    value.dtype = ir.DataType.FLOAT
    graph.register_initializer(value)
    return value


def _refused(problem: str) -> GraphError:
    return GraphError(f"pixels cannot be the input: {problem}", remedy=_REMEDY)
