"""How many multiply-adds a graph does for one image, node by node.

Counted are products alone: with a stored weight (Linear), convolutions, and products of two activations, as in
attention. What adds, scales or normalises is left out, as other counters do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from math import prod
from typing import Literal, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import InputError
from edgevit.graph.linears import linears_in
from edgevit.graph.node_facts import Role, role_of
from edgevit.graph.outline import outline, sizes_in

LayerKind = Literal["Linear", "Conv", "attention"]
_Sizes = tuple[int, ...]

#: Constants of more bytes than this hold no shapes, and are not looked at while shapes are inferred.
_SHAPE_BYTES = 8 * 1024
#: A file is compared with what it was made of on as many images as take so many multiply-adds, but on so many at least.
_COMPARED, _LEAST_COMPARED = 400e9, 8
#: Of other domains and these operators it is not known what they multiply.
_OPAQUE = ("DeformConv", "Einsum", "GRU", "If", "LSTM", "Loop", "RNN", "Scan")
_INTEGER = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")


class MultiplyAdds(NamedTuple):
    """A node that multiplies: its name and its output's, what kind it is, and its multiply-adds for one image.

    A Linear layer goes by its own name, by which plans and kernels know it.
    """

    name: str
    output: str
    kind: LayerKind
    macs: int


class Counted(NamedTuple):
    """The nodes of a graph that multiply, and the names of those whose multiply-adds are ``unknown``."""

    nodes: tuple[MultiplyAdds, ...] = ()
    unknown: tuple[str, ...] = ()


def count_multiply_adds(model: ir.Model) -> Counted:
    """Return the multiply-adds of ``model``, a float graph, for one image; ``model`` stays as it is.

    What rewrites have added to a Linear layer, its residual product, is not the model's own, and is left out. So is
    what is the same for all images: engines compute it once.
    """
    shapes = _shapes(model)
    shapes |= _probed(model, [value for value in _counted_on(model.graph) if value.name not in shapes])
    names = {layer.matmul: layer.of for layer in linears_in(model.graph)}
    depending = {value for value in model.graph.inputs if not value.is_initializer()}
    nodes: list[MultiplyAdds] = []
    unknown: list[str] = []
    for node in model.graph:
        taken = [value for value in node.inputs if value is not None and value in depending]
        if not taken or node.op_type in ("Shape", "Size"):
            continue
        depending.update(node.outputs)
        name = names.get(node) or node.name or str(node.outputs[0].name)
        if node.domain not in ("", "ai.onnx") or node.op_type in _OPAQUE or node.op_type in _INTEGER:
            unknown.append(name)
        if node.op_type not in _COUNTS or role_of(node) is Role.RESIDUAL:
            continue
        kind = _kind(node, depending)
        try:
            nodes.append(MultiplyAdds(name, str(node.outputs[0].name), kind, _COUNTS[node.op_type](node, shapes)))
        except KeyError:  # of a shape that is not known
            unknown.append(name)
    return Counted(tuple(nodes), tuple(unknown))


def images_within(model: ir.Model, multiply_adds: float, *, least: int, most: int) -> int:
    """Return how many images ``model`` takes ``multiply_adds`` for, from ``least`` to ``most`` of them."""
    of_image = sum(node.macs for node in count_multiply_adds(model).nodes)
    return min(most, max(least, int(multiply_adds / max(1, of_image))))


def images_to_compare(model: ir.Model, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the first of ``images`` (N, C, H, W), on which a file like ``model`` is compared with its source."""
    return images[: images_within(model, _COMPARED, least=_LEAST_COMPARED, most=len(images))]


def _kind(node: ir.Node, depending: Collection[ir.Value]) -> LayerKind:
    if node.op_type.startswith("Conv"):
        return "Conv"
    return "attention" if node.op_type == "Attention" or set(node.inputs[:2]) <= set(depending) else "Linear"


def _shapes(model: ir.Model) -> dict[str, _Sizes]:
    """Return the shapes of all values that are known for one image without running ``model``, by their names."""
    known: dict[str, _Sizes] = {}
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None  # noqa: S101 - an initializer has one
        known[name] = tuple(int(size) for size in value.const_value.shape)  # type: ignore[arg-type]
    light = outline(model, _SHAPE_BYTES)
    for info in light.graph.input:
        shape = info.type.tensor_type.shape
        if info.name not in known and shape.dim:
            shape.dim[0].dim_value = 1
    _forget_shapes(light.graph)
    proto = onnx.shape_inference.infer_shapes(light, data_prop=True)
    for info in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        sizes = sizes_in(info)
        if sizes is not None and all(isinstance(size, int) for size in sizes):
            known[info.name] = tuple(size for size in sizes if isinstance(size, int))
    return known


def _forget_shapes(graph: onnx.GraphProto) -> None:
    """Leave out what shapes computed values are noted to have: those are of another batch, or a symbolic one."""
    for info in (*graph.value_info, *graph.output):
        info.type.tensor_type.ClearField("shape")
    for attribute in chain.from_iterable(node.attribute for node in graph.node):
        for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            _forget_shapes(inner)


def _counted_on(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the values whose shapes say how much is multiplied."""
    for node in graph:
        if node.op_type in _COUNTS:
            yield from (value for value in (*node.inputs, *node.outputs) if value is not None and value.name)


def _probed(model: ir.Model, values: Sequence[ir.Value]) -> dict[str, _Sizes]:
    """Return the shapes of ``values`` as the reference engine gives them for one image: exporters may compute sizes.

    There are none where ``model`` cannot be run.
    """
    asked = list(dict.fromkeys(value for value in values if ir.convenience.get_const_tensor(value) is None))
    if not asked:
        return {}
    try:
        from edgevit.graph.running import ENGINE_ERRORS
        from edgevit.graph.shapes import probe
    except ImportError:  # the reference engine is not here, where another one alone is
        return {}
    refusals: tuple[type[Exception], ...] = (InputError, *ENGINE_ERRORS)
    try:
        found = probe(model, (1,), asked, ()).shapes
    except refusals:
        return {}
    return {str(value.name): shapes[0] for value, shapes in found.items()}


def _of(value: ir.Value | None, shapes: Mapping[str, _Sizes]) -> _Sizes:
    """Return the shape of ``value``.

    Raises:
        KeyError: if it is not known.
    """
    if value is None or value.name is None:
        raise KeyError("nothing")
    tensor = ir.convenience.get_const_tensor(value)  # a Constant node's too
    return shapes[value.name] if tensor is None else tuple(tensor.shape.numpy())


def _matmul(node: ir.Node, shapes: Mapping[str, _Sizes]) -> int:
    return prod(_of(node.outputs[0], shapes)) * _of(node.inputs[0], shapes)[-1]


def _gemm(node: ir.Node, shapes: Mapping[str, _Sizes]) -> int:
    inner = 0 if node.attributes.get_int("transA", 0) else 1
    return prod(_of(node.outputs[0], shapes)) * _of(node.inputs[0], shapes)[inner]


def _conv(node: ir.Node, shapes: Mapping[str, _Sizes]) -> int:
    """Count the weights that each output is a sum over: (C / groups) * the kernel's area."""
    return prod(_of(node.outputs[0], shapes)) * prod(_of(node.inputs[1], shapes)[1:])


def _conv_transpose(node: ir.Node, shapes: Mapping[str, _Sizes]) -> int:
    """Count the weights that each input is multiplied by: (M / groups) * the kernel's area."""
    return prod(_of(node.inputs[0], shapes)) * prod(_of(node.inputs[1], shapes)[1:])


def _attention(node: ir.Node, shapes: Mapping[str, _Sizes]) -> int:
    """Count queries times keys, and weights times values; all are (B, N, h * d) or (B, h, N, d)."""
    if len(node.inputs) > 4 and any(value is not None for value in node.inputs[4:6]):
        raise KeyError("keys of before")
    keys = _of(node.inputs[1], shapes)[-2]
    return keys * (prod(_of(node.inputs[0], shapes)) + prod(_of(node.outputs[0], shapes)))


_COUNTS: Mapping[str, Callable[[ir.Node, Mapping[str, _Sizes]], int]] = {
    "Attention": _attention,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
