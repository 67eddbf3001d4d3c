"""Compute what treats each token by itself on tokens (B, N, D), however the exporter had them lie there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgevit.graph.editing import add_constant, free_name
from edgevit.graph.layout import constant
from edgevit.graph.shapes import as_constant, made_of_images

_SWAP = [1, 0, 2]  # (B, N, D) -> (N, B, D), and back
_UNARY = frozenset(("Cast", "Erf", "Gelu", "Identity", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh"))
_BINARY = frozenset(("Add", "Div", "Mul", "Pow", "Sub"))


class SinkLayouts(ir.passes.InPlacePass):
    """Moves Transposes between (B, N, D) and (N, B, D), and Reshapes to (B N, D), behind all that looks at one token.

    ``nn.MultiheadAttention`` has the tokens first, and a Linear layer of two axes is a Gemm between two Reshapes. What
    is a matter of one token, as LayerNorm, Linear layers, activation functions and sums are, gives the same whichever
    way tokens lie. So these are computed as (B, N, D), and what turns them meets what turns them back, or an attention,
    which knows both. A Transpose that comes out at the end of all is taken into the axis by which a token is chosen.

    Values must have shapes, as ``FixShapes`` gives them.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        graph, changed = model.graph, False
        while True in [_step(graph, node) for node in list(graph) if node.graph is graph]:
            changed = True
        return ir.passes.PassResult(model, modified=changed)


def _step(graph: ir.Graph, node: ir.Node) -> bool:
    """Do what can be done about what is turned in front of ``node``."""
    if node.domain:
        return False
    if node.op_type in ("Reshape", "Transpose"):
        return _simplify(graph, node)
    if _turns_all(node, _is_swap):
        return _take_axis(graph, node)
    if _turns_all(node, _is_flattening) and _is_per_token(node):
        return _sink(graph, node, _flattened)
    return False


def _turns_all(node: ir.Node, kind: Callable[[ir.Node | None], bool]) -> bool:
    """Say whether all that ``node`` takes is turned by a node of that ``kind``, but for constants."""
    values = [value for value in node.inputs if value is not None and constant(value) is None]
    return bool(values) and all(kind(value.producer()) for value in values)


def _is_swap(node: ir.Node | None) -> bool:
    return node is not None and node.op_type == "Transpose" and list(node.attributes.get_ints("perm", [])) == _SWAP


def _is_flattening(node: ir.Node | None) -> bool:
    """Say whether ``node`` makes (rows, D) of tokens (B, N, D), several of an image."""
    if node is None or node.op_type != "Reshape" or node.inputs[0] is None:
        return False
    before, after = node.inputs[0].shape, node.outputs[0].shape
    if before is None or after is None or (len(before), len(after)) != (3, 2) or before[-1] != after[-1]:
        return False
    return isinstance(before[2], int) and any(isinstance(size, int) and size > 1 for size in before[:2])


def _is_per_token(node: ir.Node) -> bool:
    """Say whether ``node`` gives the same for a token wherever it lies: all constants are for each channel."""
    rank = 0 if node.outputs[0].shape is None else len(node.outputs[0].shape)
    match node.op_type:
        case "LayerNormalization":
            return node.attributes.get_int("axis", -1) in (-1, rank - 1) and len(node.outputs) == 1
        case "MatMul":
            weight = constant(node.inputs[1])
            return weight is not None and weight.ndim == 2 and constant(node.inputs[0]) is None
        case kind if kind in _BINARY:
            return all(values is None or _is_per_channel(values) for values in map(constant, node.inputs))
        case kind:
            return kind in _UNARY


def _is_per_channel(values: np.ndarray) -> bool:
    return values.size == values.shape[-1] if values.ndim else True


def _sink(graph: ir.Graph, node: ir.Node, turned: Callable[[ir.Graph, ir.Node], ir.Value]) -> bool:
    """Let ``node`` take what lies in front of what turns it, and turn what it gives."""
    for index, value in enumerate(node.inputs):
        producer = None if value is None or constant(value) is not None else value.producer()
        if producer is not None:
            node.replace_input_with(index, producer.inputs[0])
    output = node.outputs[0]
    users, ends = list(output.uses()), output.is_graph_output()
    result = turned(graph, node)
    for user, index in users:
        user.replace_input_with(index, result)
    if ends:
        graph.outputs[list(graph.outputs).index(output)] = result
    return True


def _flattened(graph: ir.Graph, node: ir.Node) -> ir.Value:
    """Give ``node`` the shape (B, N, D) of what it takes now; return its output as the (rows, D) that it was."""
    output = node.outputs[0]
    tokens = next(value for value in node.inputs if value is not None and constant(value) is None)
    before = output.shape
    assert before is not None and tokens.shape is not None  # noqa: S101, PT018 - _is_flattening looks
    output.shape = ir.Shape([tokens.shape[0], tokens.shape[1], before[-1]])
    shape = add_constant(graph, f"{output.name}.rows", np.array(as_constant(before) or [], np.int64))
    return _behind(graph, node, "Reshape", [output, shape], before)


def _swapped(graph: ir.Graph, node: ir.Node) -> ir.Value:
    """The same for (B, N, D) and (N, B, D)."""
    output = node.outputs[0]
    before = output.shape
    assert before is not None  # noqa: S101 - _take_axis looks
    output.shape = ir.Shape([before[1], before[0], before[2]])
    return _behind(graph, node, "Transpose", [output], before, perm=_SWAP)


def _behind(
    graph: ir.Graph, node: ir.Node, operator: str, inputs: list[ir.Value], shape: ir.Shape, **attributes: list[int]
) -> ir.Value:
    new = ir.node(operator, inputs, attributes, name=free_name(graph, f"{node.name or node.outputs[0].name}.turned"))
    result = new.outputs[0]
    result.name, result.shape, result.type = free_name(graph, f"{new.name}.output"), shape, node.outputs[0].type
    graph.insert_after(node, new)
    return result


def _take_axis(graph: ir.Graph, node: ir.Node) -> bool:
    """Move a swap behind ``node``, or into the axis that it works along."""
    output = node.outputs[0]
    rank = None if output.shape is None else len(output.shape)
    kind, axis = node.op_type, node.attributes.get_int("axis", 0)
    if kind in _BINARY and rank == 3 and not _is_per_token(node):
        return _swap_constants(graph, node) and _sink(graph, node, _swapped)
    if rank == 3 and _is_per_token(node):
        return _sink(graph, node, _swapped)
    if kind == "Gather" and rank in (2, 3) and axis in (0, 1):
        index = constant(node.inputs[1])
        if index is None or index.ndim != (rank - 2):
            return False
        node.attributes["axis"] = ir.AttrInt64("axis", 1 - axis)
        return _sink(graph, node, _swapped if rank == 3 else lambda _graph, one: one.outputs[0])
    if kind in ("ReduceMean", "Slice", "Concat"):
        return _take_axes(graph, node, rank)
    return False


def _swap_constants(graph: ir.Graph, node: ir.Node) -> bool:
    """Swap constants with a value for each token."""
    for index, value in enumerate(node.inputs):
        values = constant(value)
        if values is None or _is_per_channel(values):
            continue
        if values.ndim != 3:
            return False
        swapped = np.ascontiguousarray(values.transpose(_SWAP))
        node.replace_input_with(index, add_constant(graph, f"{value.name}.swapped", swapped))  # type: ignore[union-attr]
    return True


def _take_axes(graph: ir.Graph, node: ir.Node, rank: int | None) -> bool:
    """Move a swap behind a mean or a Slice over tokens or images, or a Concat of them."""
    if node.op_type == "Concat":
        axis = node.attributes.get_int("axis", 0)
        if axis not in (0, 1) or rank != 3 or not _swap_constants(graph, node):
            return False
        node.attributes["axis"] = ir.AttrInt64("axis", 1 - axis)
        return _sink(graph, node, _swapped)
    position = 1 if node.op_type == "ReduceMean" else 3
    axes = constant(node.inputs[position]) if len(node.inputs) > position else None
    if axes is None or not set(axes.reshape(-1).tolist()) <= {0, 1} or axes.size != 1:
        return False
    if node.op_type == "ReduceMean" and rank == 3 and node.attributes.get_int("keepdims", 1) == 0:
        return False
    node.replace_input_with(position, add_constant(graph, f"{node.outputs[0].name}.axes", 1 - axes))
    return _sink(graph, node, _swapped if rank == 3 else lambda _graph, one: one.outputs[0])


def _simplify(graph: ir.Graph, node: ir.Node) -> bool:
    """Make one of two Transposes or Reshapes in a row, or none where they give what there was."""
    before = None if node.inputs[0] is None else node.inputs[0].producer()
    output = node.outputs[0]
    if node.op_type == "Transpose":
        perm = list(node.attributes.get_ints("perm", []))
        if perm == sorted(perm) and perm:
            return _drop(graph, node)
        if perm == [2, 0, 1]:
            return _part_transpose(graph, node)
        if before is None or before.op_type != "Transpose" or _is_swap(node) != _is_swap(before):
            return False
        first = list(before.attributes.get_ints("perm", []))
        if len(first) != len(perm):
            return False
        node.attributes["perm"] = ir.AttrInt64s("perm", [first[axis] for axis in perm])
        node.replace_input_with(0, before.inputs[0])
        return True
    value = node.inputs[0]
    if value is not None and value.shape is not None and value.shape == output.shape and not output.is_graph_output():
        return _drop(graph, node)
    if value is not None and _swaps_one(value, output):
        node.op_type = "Transpose"
        node.resize_inputs(1)
        node.attributes["perm"] = ir.AttrInt64s("perm", _SWAP)
        return True
    sizes = constant(node.inputs[1])
    if before is None or before.op_type != "Reshape" or sizes is None or (sizes == 0).any() or _is_flattening(node):
        return False  # what makes rows of tokens is moved on its own
    node.replace_input_with(0, before.inputs[0])
    return True


def _swaps_one(before: ir.Value, after: ir.Value) -> bool:
    """Say whether a Reshape makes (N, 1, D) of the tokens (1, N, D) of one image, or turns them back."""
    if before.shape is None or after.shape is None or (len(before.shape), len(after.shape)) != (3, 3):
        return False
    first, second, width = before.shape
    return 1 in (first, second) and first != second and list(after.shape) == [second, first, width]


def _drop(graph: ir.Graph, node: ir.Node) -> bool:
    if node.inputs[0] is None or node.outputs[0].is_graph_output():
        return False
    node.outputs[0].replace_all_uses_with(node.inputs[0])
    graph.remove(node, safe=True)
    return True


def _part_transpose(graph: ir.Graph, node: ir.Node) -> bool:
    """Write what makes (N, B, D) of (B, D, N) as two Transposes, the second of which can move on."""
    value, output = node.inputs[0], node.outputs[0]
    if value is None or value.shape is None or output.shape is None or value not in made_of_images(graph):
        return False
    node.attributes["perm"] = ir.AttrInt64s("perm", [0, 2, 1])
    users = list(output.uses())
    shape = output.shape
    output.shape = ir.Shape([shape[1], shape[0], shape[2]])
    if output.is_graph_output():
        return False
    result = _behind(graph, node, "Transpose", [output], shape, perm=_SWAP)
    for user, index in users:
        user.replace_input_with(index, result)
    return True
