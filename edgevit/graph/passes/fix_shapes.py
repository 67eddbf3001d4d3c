"""Write out the sizes that an exporter left to be computed, and leave out what does nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgevit.graph.editing import add_constant
from edgevit.graph.linears import linears_in
from edgevit.graph.shapes import ABOUT, as_constant, made_of_images, probe, symbolic

#: Operators that give the same values in another shape.
_RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_SAME_IF_SHAPED_ALIKE = ("Expand", *_RESHAPES)


class FixShapes(ir.passes.InPlacePass):
    """Makes constants of what depends on no pixel and on no batch, and Reshape with a constant of all that reshapes.

    The graph is asked for it, with ``sizes`` images: see ``graph.shapes``. Values have shapes afterwards, in which
    the batch is a name. What gives what it takes, such as a Slice of everything, is left out.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self._sizes = sizes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        graph = model.graph
        of_images = made_of_images(graph)
        values = [value for node in graph for value in node.outputs if value.uses() or value.is_graph_output()]
        layered = _behind_layers(graph)
        computed = [
            value
            for value in values
            if value not in of_images and value not in layered and _is_used_by_others(value, of_images)
        ]
        found = probe(model, self._sizes, [value for value in values if value in of_images], computed)
        for value, shapes in found.shapes.items():
            value.shape = symbolic(shapes, self._sizes)
        for value, numbers in found.numbers.items():
            if all(isinstance(each, np.ndarray) and not each.any() for each in numbers):
                _leave_out_mask(graph, value)
            _fix(graph, value, numbers)
        for value in list(graph.initializers.values()):
            if _is_added_to_scores(value) and value.const_value is not None and not value.const_value.numpy().any():
                _leave_out_mask(graph, value)
        for node in list(graph):
            if node.inputs and node.inputs[0] in of_images and not _leave_out(graph, node):
                _fix_reshape(graph, node)
        return ir.passes.PassResult(model, modified=True)


def _behind_layers(graph: ir.Graph) -> set[ir.Value | None]:
    """Return what Linear layers give, and what is made of those values: a layer on learned queries stays one."""
    found: set[ir.Value | None] = {layer.output for layer in linears_in(graph)}
    for node in graph:
        if node.op_type not in ABOUT and not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


def _is_used_by_others(value: ir.Value, of_images: set[ir.Value | None]) -> bool:
    return any(output in of_images for user in value.consumers() for output in user.outputs)


def _fix(graph: ir.Graph, value: ir.Value, numbers: Sequence[np.ndarray]) -> None:
    """Make a constant of a value that was the same for each number of images."""
    first = numbers[0]
    if not isinstance(first, np.ndarray) or any(
        other.shape != first.shape or not np.array_equal(other, first) for other in numbers[1:]
    ):
        return
    value.replace_all_uses_with(add_constant(graph, f"{value.name}.fixed", first))


def _is_added_to_scores(mask: ir.Value) -> bool:
    """Say whether ``mask`` is added right in front of a softmax; the bias of a layer, even one of zeros, stays."""
    adds = [node for node in mask.consumers() if node.op_type == "Add" and not node.domain]
    return any(user.op_type == "Softmax" for node in adds for user in node.outputs[0].consumers())


def _leave_out_mask(graph: ir.Graph, zeros: ir.Value) -> None:
    """Leave out a mask that hides nothing, and the guard behind its softmax."""
    for node in list(zeros.consumers()) if _is_added_to_scores(zeros) else ():
        others = [value for value in node.inputs if value is not zeros]
        output = node.outputs[0]
        if node.op_type != "Add" or node.domain or len(others) != 1 or not _alike(others[0], output):
            continue
        for softmax in [user for user in output.consumers() if user.op_type == "Softmax"]:
            _leave_out_guards(graph, softmax.outputs[0])
        _replace(graph, node, others[0])


def _leave_out_guards(graph: ir.Graph, weights: ir.Value) -> None:
    """Leave out what puts zeros where a softmax gives no number: it does so only where a mask hides all."""
    for test in [user for user in weights.consumers() if user.op_type == "IsNaN"]:
        for where in list(test.outputs[0].consumers()):
            if where.op_type == "Where" and where.inputs[0] is test.outputs[0] and where.inputs[2] is weights:
                _replace(graph, where, weights)


def _replace(graph: ir.Graph, node: ir.Node, value: ir.Value | None) -> None:
    output = node.outputs[0]
    if value is not None and not output.is_graph_output():
        output.replace_all_uses_with(value)
        graph.remove(node, safe=True)


def _leave_out(graph: ir.Graph, node: ir.Node) -> bool:
    """Let those that read what ``node`` gives read what it takes, if that is the same; say whether it is."""
    before, after = node.inputs[0], node.outputs[0]
    same = (
        (node.op_type in _SAME_IF_SHAPED_ALIKE and _alike(before, after))
        or (node.op_type == "Slice" and _alike(before, after) and _goes_forward(node))
        or (node.op_type == "Cast" and before is not None and before.dtype is not None and before.dtype == after.dtype)
        or (node.op_type == "Dropout" and not any(value.uses() for value in node.outputs[1:]))
    )
    if before is None or not same or node.domain or after.is_graph_output():
        return False
    _replace(graph, node, before)
    return True


def _alike(before: ir.Value | None, after: ir.Value) -> bool:
    return before is not None and before.shape is not None and before.shape == after.shape


def _goes_forward(node: ir.Node) -> bool:
    """Say whether a Slice takes values in their order."""
    if len(node.inputs) < 5 or node.inputs[4] is None:
        return True
    steps = ir.convenience.get_const_tensor(node.inputs[4])
    return steps is not None and bool((steps.numpy() > 0).all())


def _fix_reshape(graph: ir.Graph, node: ir.Node) -> None:
    output = node.outputs[0]
    shape = None if output.shape is None else as_constant(output.shape)
    if node.op_type not in _RESHAPES or node.domain or shape is None or node.inputs[0] is None:
        return
    constant = add_constant(graph, f"{output.name}.shape", np.array(shape, dtype=np.int64))
    if node.op_type == "Reshape":
        node.replace_input_with(1, constant)
        node.attributes.pop("allowzero", None)
        return
    new = ir.node("Reshape", [node.inputs[0], constant], name=node.name)
    new.outputs[0].shape, new.outputs[0].type = output.shape, output.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], [new], [output], [new.outputs[0]])
