"""What a graph takes and gives, and which of that EdgeViT uses."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgevit.errors import GraphError
from edgevit.graph.metadata import OUTPUT
from edgevit.graph.onnx_file import OnnxFile, shown
from edgevit.models.spec import OutputActivation

_RANK = 4  # of images (N, C, H, W)
_CHANNELS = (1, 3)


@dataclass(frozen=True, slots=True)
class Interface:
    """The input for images (N, C, H, W) and the output that is used of a graph, with the sizes that it fixes.

    A size is None where the graph takes any. ``left_out`` are outputs that are not used. ``activation`` is what makes
    probabilities of logits at the end of the graph, and ``logits`` the value in front of it; None where nothing does.
    """

    input: str
    output: str
    batch: int | None
    channels: int | None
    height: int | None
    width: int | None
    left_out: tuple[str, ...] = ()
    activation: OutputActivation | None = None
    logits: str | None = None

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images, where both are fixed."""
        return None if self.height is None or self.width is None else (self.height, self.width)


def interface_of(file: OnnxFile, output: str | None = None) -> Interface:
    """Return the interface of ``file``; ``output`` names the output to use.

    Without a name, it is the one called ``logits``, or else the first.

    Raises:
        GraphError: if there is no such output, it is not float32 (N, outputs), or the input is not float32 images.

    """
    graph = file.model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(shown(value.name) for value in inputs[:4]) or "none"
        raise GraphError(
            f"{file.path} has {len(inputs)} inputs ({names}), not one",
            remedy="export the part of the model that takes images alone",
        )
    (images,) = inputs
    batch, channels, height, width = _image_sizes(images, file)
    outputs = {value.name: value for value in graph.output}
    chosen = _chosen(outputs, output, file)
    others = tuple(name for name in outputs if name != chosen)
    activation, logits = _activation(graph, chosen)
    return Interface(images.name, chosen, batch, channels, height, width, others, activation, logits)


def _activation(graph: onnx.GraphProto, output: str) -> tuple[OutputActivation, str] | tuple[None, None]:
    """Return what makes probabilities of the values of rank 2 behind which ``output`` lies, and their name."""
    producers = {name: node for node in graph.node for name in node.output}
    node = producers.get(output)
    while node is not None and node.op_type in ("Cast", "Identity"):  # float32 is all that there is
        node = producers.get(node.input[0])
    if node is None or node.domain or node.op_type not in ("Softmax", "Sigmoid"):
        return None, None
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
    if node.op_type == "Softmax" and axis not in (-1, 1):
        return None, None
    return ("softmax" if node.op_type == "Softmax" else "sigmoid"), node.input[0]


def _image_sizes(images: onnx.ValueInfoProto, file: OnnxFile) -> list[int | None]:
    kind = images.type.tensor_type.elem_type
    if kind != onnx.TensorProto.FLOAT:
        raise GraphError(
            f"the input '{shown(images.name)}' of {file.path} is {onnx.TensorProto.DataType.Name(kind).lower()}, "
            "not float32",
            remedy="export the model so that it takes float32 images, normalised outside of it",
        )
    sizes = _sizes(images)
    if len(sizes) != _RANK:
        raise GraphError(
            f"the input '{shown(images.name)}' of {file.path} has {len(sizes)} axes, images (N, C, H, W) have 4",
            remedy="export the model so that it takes images alone",
        )
    if sizes[1] not in (*_CHANNELS, None):
        last = sizes[3] in _CHANNELS
        raise GraphError(
            f"the input '{shown(images.name)}' of {file.path} has {sizes[1]} channels"
            + (", which seem to come last" if last else ", EdgeViT gives 1 or 3"),
            remedy="export the model so that it takes images as (N, C, H, W), grey or RGB",
        )
    if sizes[0] not in (1, None):
        raise GraphError(
            f"{file.path} takes {sizes[0]} images at a time and no other number",
            remedy="export it again with a dynamic batch: dynamic_axes or dynamic_shapes of torch.onnx.export",
        )
    return sizes


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    """Return the sizes of a tensor, None for those that may be any; onnx's checker sees to it that there are some."""
    kind = value.type.tensor_type
    return [size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None for size in kind.shape.dim]


def _chosen(outputs: dict[str, onnx.ValueInfoProto], wanted: str | None, file: OnnxFile) -> str:
    names = ", ".join(shown(name) for name in outputs)
    if wanted is not None and wanted not in outputs:
        raise GraphError(f"{file.path} has no output '{wanted}'", remedy=f"give --onnx-output one of: {names}")
    chosen = wanted or (OUTPUT if OUTPUT in outputs else next(iter(outputs)))
    sizes = _sizes(outputs[chosen])
    if len(sizes) != 2:
        raise refused_output(file, chosen, f"has {len(sizes)} axes", tuple(outputs))
    if outputs[chosen].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise refused_output(file, chosen, "is not float32", tuple(outputs))
    return chosen


def refused_output(file: OnnxFile, output: str, problem: str, outputs: tuple[str, ...]) -> GraphError:
    """Return the error for an ``output`` of ``outputs`` that is not one row of numbers for each image."""
    others = [shown(name) for name in outputs if name != output]
    other = f"name another with --onnx-output ({', '.join(others[:4])}), or " if others else ""
    return GraphError(
        f"the output '{shown(output)}' of {file.path} {problem}: logits (N, classes), or features (N, width) with "
        "--embedding, are needed",
        remedy=f"{other}export the classifier, or the pooled vector, as the model's output",
    )
