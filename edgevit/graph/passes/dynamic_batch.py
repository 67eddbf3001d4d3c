"""Let a graph that was traced with one image take any number."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from edgevit.errors import InputError
from edgevit.graph.batch_place import BatchPlace, places_of_batch
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.running import ENGINE_ERRORS
from edgevit.graph.shapes import probe

BATCH = "batch"

#: Operators that give numbers about a tensor, not of it.
_ABOUT = ("Shape", "Size")
_LAST = 2**62  # no axis is as long
_PARTS = {"start": 0, "first": 1, "end": _LAST}
_REFUSALS: tuple[type[Exception], ...] = (InputError, *ENGINE_ERRORS)


class DynamicBatch(ir.passes.InPlacePass):
    """Gives the input of a graph for one image a batch of any size.

    Three things keep the 1 of a trace with one image, and are rewritten, on the axis where the batch lies:

    - the constant shape, such as (1, N, D) or (heads, N, d), that Reshape gives to what was made of the images: the
      size of that axis becomes -1, whatever is left, or where another is -1 already, 0, the size that is there;
    - a constant (1, 1, D), such as the class token, that Concat puts before the patches of the one image: it is
      expanded to their number;
    - the constant sizes, such as (1, C, H, W), that Resize makes of images: the first becomes their number.

    This is a proposal, no proof: a graph could hold the 1 elsewhere, or mean another axis by it. Whoever runs the pass
    must compare what the graph gives for several images at once with what it gives for each.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        graph = model.graph
        InferShapes()(model)
        (images,) = graph.inputs
        made_of_images = _followers(graph, images)
        _ask_for_sizes(model, made_of_images)
        places = places_of_batch(graph, images)
        for node in list(graph):
            axis = places.get(node.outputs[0], BatchPlace(0)).axis
            if node.op_type == "Reshape" and node.inputs[0] in made_of_images:
                _free_reshape(graph, node, axis)
            elif node.op_type == "Resize" and node.inputs[0] in made_of_images:
                _free_resize(graph, node, images)
            elif node.op_type == "Concat":
                _expand_constants(graph, node, images, made_of_images, axis)
        assert images.shape is not None  # noqa: S101 - whoever runs the pass has looked
        images.shape = ir.Shape([BATCH, *images.shape[1:]])
        for node in graph:
            for value in node.outputs:
                value.shape = None
        return ir.passes.PassResult(model, modified=True)


def _ask_for_sizes(model: ir.Model, values: Collection[ir.Value | None]) -> None:
    """Give those of ``values`` the shape for one image whose shape is not known: an exporter may compute sizes."""
    named = (value for value in values if value is not None and value.name)
    unknown = [value for value in named if value.shape is None or not value.shape.is_static()]
    if not unknown:
        return
    try:
        shapes = probe(model, (1,), unknown, ()).shapes
    except _REFUSALS:
        return
    for value, (shape,) in shapes.items():
        value.shape = ir.Shape(shape)


def _followers(graph: ir.Graph, images: ir.Value) -> set[ir.Value | None]:
    """Return the values that are computed from the pixels of ``images``, not from their number and size alone."""
    found: set[ir.Value | None] = {images}
    for node in graph:
        if node.op_type not in _ABOUT and not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


def _free_reshape(graph: ir.Graph, node: ir.Node, axis: int) -> None:
    shape = _sizes(node)
    if not shape or shape[axis] == -1:
        return
    if -1 not in shape:
        shape[axis] = -1
    elif shape[axis] == 1 and not node.attributes.get_int("allowzero", 0):
        shape[axis] = 0
    node.replace_input_with(1, _constant(graph, f"{node.outputs[0].name}.shape", shape))


def _free_resize(graph: ir.Graph, node: ir.Node, images: ir.Value) -> None:
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    known = None if sizes is None else ir.convenience.get_const_tensor(sizes)
    if sizes is None or known is None or known.shape.numpy() != (4,) or "axes" in node.attributes:
        return
    start, first, end = (_constant(graph, f"{sizes.name}.{part}", [at]) for part, at in _PARTS.items())
    of_images = ir.node("Shape", [images])
    batch, others = ir.node("Slice", [of_images.outputs[0], start, first]), ir.node("Slice", [sizes, first, end])
    whole = ir.node("Concat", [batch.outputs[0], others.outputs[0]], attributes={"axis": 0})
    graph.insert_before(node, [of_images, batch, others, whole])
    node.replace_input_with(3, whole.outputs[0])


def _sizes(node: ir.Node) -> list[int]:
    """Return the shape that a Reshape gives to what was made of one image; empty where that is computed."""
    given = None if node.inputs[1] is None else ir.convenience.get_const_tensor(node.inputs[1])
    inferred = node.outputs[0].shape
    if inferred is not None and inferred.is_static():
        return list(inferred.numpy())
    return [] if given is None else [int(size) for size in np.ravel(given.numpy())]


def _expand_constants(
    graph: ir.Graph, node: ir.Node, images: ir.Value, made_of_images: set[ir.Value | None], axis: int
) -> None:
    """Expand what is the same for all images, of the inputs of a Concat, on the ``axis`` where these lie in others."""
    rank = None if node.outputs[0].shape is None else len(node.outputs[0].shape)
    along = node.attributes.get_int("axis", 0)
    if made_of_images.isdisjoint(node.inputs) or along in (axis, axis - (rank or 0)):
        return
    for index, value in enumerate(node.inputs):
        if value is None or value in made_of_images:
            continue
        name = f"{value.name}.for_{node.outputs[0].name}"
        parts = {"start": [0], "first": [1], "place": [axis], "next": [axis + 1], "end": [_LAST]}
        constants = {part: _constant(graph, f"{name}.{part}", numbers) for part, numbers in parts.items()}
        start, first, place, behind, end = constants.values()
        of_images, of_value = ir.node("Shape", [images]), ir.node("Shape", [value])
        batch = ir.node("Slice", [of_images.outputs[0], start, first])
        ahead = ir.node("Slice", [of_value.outputs[0], start, place])
        others = ir.node("Slice", [of_value.outputs[0], behind, end])
        sizes = [ahead.outputs[0], batch.outputs[0], others.outputs[0]]
        shape = ir.node("Concat", sizes, attributes={"axis": 0})
        expand = ir.node("Expand", [value, shape.outputs[0]])
        graph.insert_before(node, [of_images, of_value, batch, ahead, others, shape, expand])
        node.replace_input_with(index, expand.outputs[0])


def _constant(graph: ir.Graph, name: str, numbers: list[int]) -> ir.Value:
    taken, free = graph.initializers, name
    while free in taken:
        free += "_"
    value = ir.Value(name=free, const_value=ir.Tensor(np.array(numbers, dtype=np.int64), name=free))
    value.shape, value.dtype = ir.Shape([len(numbers)]), ir.DataType.INT64
    graph.register_initializer(value)
    return value
