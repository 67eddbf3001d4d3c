"""Write a LayerNorm that is made of single operations as the one operator that it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.saving import tidy

_SINCE = 17  # the opset that brought LayerNormalization


@dataclass(frozen=True, slots=True)
class _Normalised:
    """``value`` is ``x`` less its mean over the ``axes`` at its end, divided by the deviation; or an affine of that."""

    x: ir.Value
    axes: int
    epsilon: float
    value: ir.Value
    scale: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None


class FuseLayerNorm(ir.passes.InPlacePass):
    """Puts LayerNormalization in the place of ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt and Div, as opset 16 has it.

    Squares in the open overflow float16, and no rewrite finds the LayerNorm. Scale and bias go into it where they are
    constants. The forms are those of torch (``(x - mean) / sqrt(var + e)``, by Div or by Reciprocal and Mul) and
    of TensorFlow (``x m + (b - mean m)`` with ``m = w / sqrt(var + e)``).
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        if model.graph.opset_imports.get("", 0) < _SINCE:
            return ir.passes.PassResult(model, modified=False)
        InferShapes()(model)
        found = [norm for node in model.graph if (norm := _layer_norm(node)) is not None]
        fused = [_replace(model.graph, norm) for norm in found]
        tidy(model)
        return ir.passes.PassResult(model, modified=any(fused))


def _layer_norm(root: ir.Node) -> _Normalised | None:
    """Return what is normalised by dividing by what ``root`` gives, if that is the deviation of a LayerNorm."""
    plus_epsilon = _producer(root.inputs[0], "Add") if root.op_type == "Sqrt" else None
    variance, epsilon = _with_constant(plus_epsilon)
    mean_of_squares = _producer(variance, "ReduceMean")
    if mean_of_squares is None or epsilon is None or epsilon.size != 1:
        return None
    axes, centred = _last_axes(mean_of_squares), _squared(mean_of_squares.inputs[0])
    x = centred.inputs[0] if centred is not None else None
    if axes is None or x is None or not _is_centred(centred, x, axes):
        return None
    found = _divided(root.outputs[0], x, axes) or _as_in_tensorflow(root.outputs[0], x, axes)
    if found is None:
        return None
    value, scale, bias = found
    return _affine(_Normalised(x, axes, float(epsilon.reshape(())), value, scale, bias))


def _divided(deviation: ir.Value, x: ir.Value, axes: int) -> tuple[ir.Value, None, None] | None:
    """Return ``(x - mean) / deviation``, if that is the only use of ``deviation``."""
    node = _only_user(deviation)
    if node is not None and node.op_type == "Reciprocal":
        inverse, node = node.outputs[0], _only_user(node.outputs[0])
        others = [] if node is None or node.op_type != "Mul" else [each for each in node.inputs if each is not inverse]
    else:
        others = [node.inputs[0]] if node is not None and node.op_type == "Div" else []
    if node is None or len(others) != 1 or not _is_centred(_producer(others[0], "Sub"), x, axes):
        return None
    return node.outputs[0], None, None


def _as_in_tensorflow(
    deviation: ir.Value, x: ir.Value, axes: int
) -> tuple[ir.Value, NDArray[np.float32], NDArray[np.float32]] | None:
    """Return ``x m + (bias - mean m)`` for ``m = scale / deviation``, if that is the only use of ``deviation``."""
    inverse = _only_user(deviation)
    product = _only_user(inverse.outputs[0]) if inverse is not None and inverse.op_type == "Reciprocal" else None
    _, scale = _with_constant(product if product is not None and product.op_type == "Mul" else None)
    if product is None or scale is None:
        return None
    factor = product.outputs[0]
    users = {user for user in factor.consumers() if user.op_type == "Mul"}
    whole = [user for user in users if x in user.inputs]
    of_mean = [user for user in users if any(_is_mean(each, x, axes) for each in user.inputs)]
    if len(users) != len(factor.uses()) or (len(users), len(whole), len(of_mean)) != (2, 1, 1):
        return None
    difference, added = _only_user(of_mean[0].outputs[0]), _only_user(whole[0].outputs[0])
    if difference is None or added is None or (difference.op_type, added.op_type) != ("Sub", "Add"):
        return None
    bias = _constant(difference.inputs[0])
    if bias is None or difference.outputs[0] not in added.inputs or difference.inputs[1] is not of_mean[0].outputs[0]:
        return None
    return added.outputs[0], scale, bias


def _affine(norm: _Normalised) -> _Normalised:
    """Return ``norm`` with the constant that it is multiplied by and the one that is added next, where there are."""
    value, scale, bias = norm.value, norm.scale, norm.bias
    if scale is None:
        node = _only_user(value)
        if node is not None and node.op_type == "Mul" and (found := _with_constant(node)[1]) is not None:
            value, scale = node.outputs[0], found
    if bias is None:
        node = _only_user(value)
        if node is not None and node.op_type == "Add" and (found := _with_constant(node)[1]) is not None:
            value, bias = node.outputs[0], found
    sizes = _sizes(norm)
    if sizes is None or not all(each is None or _fits(each, sizes) for each in (scale, bias)):
        return norm
    return _Normalised(norm.x, norm.axes, norm.epsilon, value, scale, bias)


def _replace(graph: ir.Graph, norm: _Normalised) -> bool:
    """Put one operator in the place of ``norm``, if the sizes that it needs are known."""
    sizes = _sizes(norm)
    given = [each for each in (norm.scale, norm.bias) if each is not None]
    old = norm.value
    node_before = old.producer()
    if sizes is None or node_before is None or not all(_fits(each, sizes) for each in given):
        return False
    name = node_before.name or str(old.name)
    inputs = [norm.x, _add(graph, f"{name}.scale", 1.0 if norm.scale is None else norm.scale, sizes)]
    if norm.bias is not None:
        inputs.append(_add(graph, f"{name}.bias", norm.bias, sizes))
    attributes = {"axis": -norm.axes, "epsilon": norm.epsilon}
    node = ir.node("LayerNormalization", inputs, attributes=attributes, name=f"{name}.layer_norm")
    new = node.outputs[0]
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, node_before, [], [node], [old], [new])
    return True


def _add(graph: ir.Graph, name: str, values: NDArray[np.float32] | float, sizes: tuple[int, ...]) -> ir.Value:
    whole = np.ascontiguousarray(np.broadcast_to(np.asarray(values, dtype=np.float32), _sizes_of(values, sizes)))
    tensor = ir.Tensor(whole.reshape(sizes), name=name)
    value = ir.Value(name=name, shape=ir.Shape(sizes), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    graph.register_initializer(value)
    return value


def _sizes_of(values: NDArray[np.float32] | float, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape to broadcast ``values`` to so that it has as many as ``sizes``: leading ones are kept."""
    extra = max(0, np.ndim(values) - len(sizes))
    return (1,) * extra + sizes


def _fits(values: NDArray[np.float32], sizes: tuple[int, ...]) -> bool:
    """Say whether a constant is one for each of the normalised values, the same everywhere else."""
    shape = (1,) * max(0, len(sizes) - values.ndim) + values.shape
    leading, last = shape[: len(shape) - len(sizes)], shape[len(shape) - len(sizes) :]
    return set(leading) <= {1} and all(each in (1, size) for each, size in zip(last, sizes, strict=True))


def _sizes(norm: _Normalised) -> tuple[int, ...] | None:
    shape = norm.x.shape
    sizes = None if shape is None else tuple(shape[len(shape) - norm.axes :])
    known = tuple(size for size in sizes or () if isinstance(size, int))
    return known if len(known) == norm.axes else None


def _squared(value: ir.Value | None) -> ir.Node | None:
    """Return the Sub whose square ``value`` is."""
    node = None if value is None else value.producer()
    if node is None or len(node.inputs) != 2:
        return None
    exponent = _constant(node.inputs[1])
    squares = node.op_type == "Pow" and exponent is not None and exponent.size == 1 and exponent.reshape(()) == 2
    same = node.op_type == "Mul" and node.inputs[0] is node.inputs[1]
    return _producer(node.inputs[0], "Sub") if squares or same else None


def _is_centred(node: ir.Node | None, x: ir.Value, axes: int) -> bool:
    return node is not None and node.inputs[0] is x and _is_mean(node.inputs[1], x, axes)


def _is_mean(value: ir.Value | None, x: ir.Value, axes: int) -> bool:
    node = _producer(value, "ReduceMean")
    return node is not None and node.inputs[0] is x and _last_axes(node) == axes


def _last_axes(mean: ir.Node) -> int | None:
    """Return over how many axes at the end a ReduceMean that keeps them goes; None where it is another."""
    values = _constant(mean.inputs[1]) if len(mean.inputs) > 1 else None
    given = [] if values is None else [int(each) for each in values.reshape(-1)]
    axes = given or [int(each) for each in mean.attributes.get_ints("axes", [])]
    source = mean.inputs[0]
    rank = len(source.shape) if source is not None and source.shape is not None else None
    if not axes or mean.attributes.get_int("keepdims", 1) != 1 or (rank is None and max(axes) >= 0):
        return None
    from_end = sorted(axis if axis < 0 else axis - (rank or 0) for axis in axes)
    return len(axes) if from_end == list(range(-len(axes), 0)) else None


def _with_constant(node: ir.Node | None) -> tuple[ir.Value | None, NDArray[np.float32] | None]:
    """Return of a node with two inputs the one that is computed, and the values of the one that is constant."""
    for index in (0, 1) if node is not None and len(node.inputs) == 2 else ():
        values = _constant(node.inputs[index])  # type: ignore[union-attr]
        if values is not None and values.dtype == np.float32:
            return node.inputs[1 - index], values  # type: ignore[union-attr]
    return None, None


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and node.domain in ("", "ai.onnx") else None


def _only_user(value: ir.Value) -> ir.Node | None:
    users = [user for user, _ in value.uses()]
    return users[0] if len(users) == 1 and not value.is_graph_output() else None


def _constant(value: ir.Value | None) -> NDArray[np.float32] | None:
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()
