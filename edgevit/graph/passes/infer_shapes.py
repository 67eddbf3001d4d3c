"""Infer the shapes and types of a graph's values from those of its inputs."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.graph.nested import has_graph
from edgevit.graph.outline import outline, sizes_in

#: Constants of more bytes than this hold no shapes.
_LARGEST = 1000


class InferShapes(ir.passes.InPlacePass):
    """Gives values the shapes and types that onnx infers; a graph that onnx finds wrong stays as it is.

    onnx-ir's own pass does the same, and is left what is not a plain graph: it makes a second graph in memory of what
    was inferred, which takes ten times as long as to infer it.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change no node."""
        inferred = None if model.functions or any(map(has_graph, model.graph)) else _inferred(model)
        if inferred is None:
            return ir.passes.PassResult(model, modified=common.ShapeInferencePass()(model).modified)
        _annotate_constants(model.graph)
        return ir.passes.PassResult(model, modified=_take_over(model.graph, inferred))


def _inferred(model: ir.Model) -> list[onnx.ValueInfoProto] | None:
    """Return what onnx infers of the values of ``model``; None if it refuses, or some are no tensors."""
    try:
        plain = outline(model, _LARGEST)
        graph = onnx.shape_inference.infer_shapes(plain, check_type=True, strict_mode=True, data_prop=True).graph
    except Exception:  # noqa: BLE001 - onnx has many for what it refuses; onnx-ir's pass knows what then
        return None
    inferred = [*graph.value_info, *graph.output]
    return inferred if all(info.type.HasField("tensor_type") for info in inferred) else None


def _annotate_constants(graph: ir.Graph) -> None:
    """Note the shapes and types of constants, and put the large ones behind the small, as onnx-ir's pass leaves them.

    Files list them in this order: the same model is to give the same bytes, whichever pass it went through.
    """
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None:
            value.shape = tensor.shape if value.shape is None else value.shape  # type: ignore[assignment]
            value.dtype = tensor.dtype if value.dtype is None else value.dtype
        if tensor is None or tensor.nbytes > _LARGEST:
            del graph.initializers[name]
            graph.initializers.add(value)


def _take_over(graph: ir.Graph, inferred: Iterable[onnx.ValueInfoProto]) -> bool:
    """Give the values of ``graph`` what was ``inferred`` by their names; say whether that changed any."""
    values = {value.name: value for node in graph for value in node.outputs}
    modified = False
    for info in inferred:
        value, sizes, kind = values.get(info.name), sizes_in(info), info.type.tensor_type.elem_type
        if value is not None and sizes is not None and value.shape != sizes:
            value.shape, modified = ir.Shape(sizes, frozen=True), True
        if value is not None and kind and value.dtype != kind:
            value.dtype, modified = ir.DataType(kind), True
    return modified
