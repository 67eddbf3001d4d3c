"""What sizes the values of a graph have, as the engine gives them: exactly, and by how many images there are.

Shape inference knows what operators do, but not what exporters compute sizes by. So the graph is asked: with two
images and with three, what differs is the batch, or a multiple of it. That is a proposal, no proof, as a graph may hold
the number of images anywhere: what is made of it is compared with the file that was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from edgevit.graph.saving import serialize
from edgevit.limits import within_limits

BATCH = "batch"

#: Numbers of images with which a graph of any batch is asked.
SIZES = (2, 3)

#: Operators that give numbers about a tensor, not of it.
ABOUT = ("Shape", "Size")
_FATAL = 4  # log severity
_IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class Probe:
    """What a graph was seen to have: ``shapes`` of values, and the ``numbers`` of those that were asked for."""

    shapes: dict[ir.Value, list[tuple[int, ...]]]
    numbers: dict[ir.Value, list[NDArray[np.generic]]]


def made_of_images(graph: ir.Graph) -> set[ir.Value | None]:
    """Return the values that are computed from the pixels of images, not from their number and size alone."""
    found: set[ir.Value | None] = set(graph.inputs)
    for node in graph:
        if node.op_type not in ABOUT and not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


def probe(model: ir.Model, sizes: Sequence[int], shapes: Iterable[ir.Value], numbers: Iterable[ir.Value]) -> Probe:
    """Run ``model`` with each of ``sizes`` images, and return what ``shapes`` and ``numbers`` are then.

    Values must have names, and the one input a shape that is fixed but for the batch.

    Raises:
        One of ``ENGINE_ERRORS``: if it cannot be run.
        InputError: if that takes more memory or time than the model's size explains.

    """
    shapes, numbers = list(shapes), list(numbers)
    proto = onnx.load_model_from_string(serialize(model))
    asked = []
    for index, value in enumerate(shapes):
        name = f"edgevit.shape.{index}"
        proto.graph.node.append(onnx.helper.make_node("Shape", [str(value.name)], [name]))
        asked.append(name)
    asked += [str(value.name) for value in numbers]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(asked))
    answers = [_run(proto, model.graph.inputs[0], size, asked) for size in sizes]
    of_shapes = [[tuple(map(int, answer[index])) for answer in answers] for index in range(len(shapes))]
    of_numbers = [[answer[index] for answer in answers] for index in range(len(shapes), len(asked))]
    return Probe(dict(zip(shapes, of_shapes, strict=True)), dict(zip(numbers, of_numbers, strict=True)))


def complete_shapes(graph: ir.Graph) -> None:
    """Give the values of ``graph`` shapes that say all sizes but the batch, where inference has left some open.

    Raises:
        As ``probe``.

    """
    values = [value for node in graph for value in node.outputs if value.uses() or value.is_graph_output()]
    open_ones = [value for value in values if value.shape is None or not _says_all(value.shape)]
    if not open_ones:
        return
    batch = graph.inputs[0].shape[0] if graph.inputs[0].shape else None
    sizes = (batch,) if isinstance(batch, int) else SIZES
    found = probe(ir.Model(graph, ir_version=_IR_VERSION), sizes, open_ones, [])
    for value, shapes in found.shapes.items():
        value.shape = symbolic(shapes, sizes) or value.shape


def _says_all(shape: ir.Shape) -> bool:
    return all(isinstance(size, int) for size in shape[1:])


def _run(proto: onnx.ModelProto, images: ir.Value, size: int, asked: list[str]) -> list[NDArray[np.generic]]:
    assert images.shape is not None  # noqa: S101 - whoever asks has fixed it
    content, options = proto.SerializeToString(), onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    zeros = np.zeros((size, *(each for each in images.shape[1:] if isinstance(each, int))), np.float32)
    open_it = partial(onnxruntime.InferenceSession, content, options, providers=["CPUExecutionProvider"])
    session = within_limits(len(content), "the graph", open_it)
    found: list[NDArray[np.generic]] = within_limits(
        len(content), "the graph", partial(session.run, asked, {str(images.name): zeros}), times=size
    )
    return found


def symbolic(shapes: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> ir.Shape | None:
    """Return the shape that is ``shapes[i]`` for ``sizes[i]`` images: numbers, ``batch``, or ``4*batch``.

    None if it is none of that.
    """
    if len({len(shape) for shape in shapes}) != 1:
        return None
    dimensions = [_dimension(each, sizes) for each in zip(*shapes, strict=True)]
    return None if None in dimensions else ir.Shape(dimensions)


def _dimension(seen: Sequence[int], sizes: Sequence[int]) -> int | str | None:
    if len(set(seen)) == 1:
        return seen[0]
    multiple = seen[0] // sizes[0]
    if any(each != multiple * size for each, size in zip(seen, sizes, strict=True)):
        return None
    return BATCH if multiple == 1 else f"{multiple}*{BATCH}"


def sizes_at(value: ir.Value | None, batch: int) -> tuple[int, ...] | None:
    """Return the shape of ``value`` for so many images; None where it is not known."""
    shape = None if value is None else value.shape
    if shape is None:
        return None
    found = [size if isinstance(size, int) else _at(size.value, batch) for size in shape]
    return None if None in found else tuple(size for size in found if size is not None)


def _at(name: str | None, batch: int) -> int | None:
    if name == BATCH:
        return batch
    multiple, star, rest = (name or "").partition("*")
    return int(multiple) * batch if star and rest == BATCH and multiple.isdecimal() else None


def as_constant(shape: ir.Shape) -> list[int] | None:
    """Return ``shape`` as Reshape takes it, -1 for the one size that depends on the batch; None if several do."""
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return sizes if sizes.count(-1) <= 1 else None
