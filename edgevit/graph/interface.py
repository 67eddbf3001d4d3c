"""What a graph takes and gives, and which of that EdgeViT uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import onnx

from edgevit.errors import GraphError, InputError
from edgevit.graph.metadata import OUTPUT
from edgevit.graph.onnx_file import OnnxFile, shown
from edgevit.likeness import alike
from edgevit.models.outputs import OUTPUT_KINDS, OutputKind
from edgevit.models.spec import OutputActivation

_RANK = 4  # of images (N, C, H, W)
_CHANNELS = (1, 3)


class WantedOutput(NamedTuple):
    """An output that a user names, and what it is; None where that is to be told from its name and shape."""

    name: str
    kind: OutputKind | None = None


def onnx_outputs_in(texts: Sequence[str]) -> tuple[WantedOutput, ...]:
    """Return the outputs that ``texts`` name, each as NAME or NAME=KIND.

    Raises:
        InputError: if there is no such kind, or one is named twice.
    """
    found = []
    for text in texts:
        name, equals, kind = text.strip().rpartition("=")
        if not equals:
            name, kind = kind, ""
        elif kind not in OUTPUT_KINDS:
            close = alike(kind, OUTPUT_KINDS)
            raise InputError(
                f"'{shown(kind)}' is no kind of output",
                remedy=f"give {shown(name)}={close[0] if close else 'KIND'}; kinds are {', '.join(OUTPUT_KINDS)}",
            )
        known = next((each for each in OUTPUT_KINDS if each == kind), None)
        found.append(WantedOutput(name, known))
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise InputError("an output is named twice", remedy="name each output once")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Interface:
    """The input for images (N, C, H, W) and the outputs that are used of a graph, with the sizes that it fixes.

    A size is None where the graph takes any. ``left_out`` are outputs that are not used. Where ``typed``, outputs are
    anything but one row of logits or features for each image; else ``activation`` is what makes probabilities of logits
    at the end of the graph, and ``logits`` the value in front of it; None where nothing does.
    """

    input: str
    outputs: tuple[WantedOutput, ...]
    typed: bool
    batch: int | None
    channels: int | None
    height: int | None
    width: int | None
    left_out: tuple[str, ...] = ()
    activation: OutputActivation | None = None
    logits: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs' names."""
        return tuple(output.name for output in self.outputs)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images, where both are fixed."""
        return None if self.height is None or self.width is None else (self.height, self.width)


def interface_of(file: OnnxFile, wanted: Sequence[WantedOutput] = ()) -> Interface:
    """Return the interface of ``file``; ``wanted`` names the outputs to use.

    Without names, it is the one called ``logits``, or else the first, where that is one row for each image; else all.

    Raises:
        GraphError: if there is no such output, it is not float32, or the input is not float32 images.

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
    chosen = tuple(wanted) or _usual(outputs, file)
    _check_outputs(outputs, chosen, file)
    one_row = len(chosen) == 1 and len(_sizes(outputs[chosen[0].name])) == 2
    typed = not (one_row and chosen[0].kind in (None, "logits", "embedding"))
    others = tuple(name for name in outputs if name not in {each.name for each in chosen})
    activation, logits = (None, None) if typed else activation_behind(graph, chosen[0].name)
    return Interface(images.name, chosen, typed, batch, channels, height, width, others, activation, logits)


def activation_behind(graph: onnx.GraphProto, output: str) -> tuple[OutputActivation, str] | tuple[None, None]:
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


def _usual(outputs: dict[str, onnx.ValueInfoProto], file: OnnxFile) -> tuple[WantedOutput, ...]:
    """Return the outputs that are used where none is named."""
    first = OUTPUT if OUTPUT in outputs else next(iter(outputs))
    if len(_sizes(outputs[first])) == 2 and _is_float(outputs[first]):
        return (WantedOutput(first),)
    floats = tuple(WantedOutput(name) for name, value in outputs.items() if _is_float(value))
    if not floats:
        raise refused_output(file, first, "is not float32", tuple(outputs))
    return floats


def _check_outputs(outputs: dict[str, onnx.ValueInfoProto], chosen: Sequence[WantedOutput], file: OnnxFile) -> None:
    for name, _ in chosen:
        if name not in outputs:
            close = alike(name, list(outputs))
            meant = f"did you mean {' or '.join(map(shown, close[:2]))}? " if close else ""
            raise GraphError(
                f"{file.path} has no output '{shown(name)}'",
                remedy=f"{meant}give --onnx-output one of: {', '.join(map(shown, outputs))}",
            )
        if not _is_float(outputs[name]):
            raise refused_output(file, name, "is not float32", tuple(outputs))


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def refused_output(file: OnnxFile, output: str, problem: str, outputs: tuple[str, ...]) -> GraphError:
    """Return the error for an ``output`` of ``outputs`` that is not a fixed number of numbers for each image."""
    others = [shown(name) for name in outputs if name != output]
    other = f"name another with --onnx-output ({', '.join(others[:4])}), or " if others else ""
    return GraphError(
        f"the output '{shown(output)}' of {file.path} {problem}: "
        "float32 (N, ...) of one shape for every image is needed",
        remedy=f"{other}export the part of the model whose outputs are such",
    )
