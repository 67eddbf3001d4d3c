"""A graph as protobuf without its large constants: what inference of shapes looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer


def outline(model: ir.Model, largest: int) -> onnx.ModelProto:
    """Return ``model``, whose constants are inputs, too; those of more than ``largest`` bytes are nothing else.

    What its values are noted to be is taken over, but no functions and no metadata. ``model`` stays as it is.

    Raises:
        SerdeError, TypeError, ValueError: if it is none that can be written.

    """
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    graph = model.graph
    for value in graph.inputs:
        _describe(proto.graph.input, value)
    for value in graph.initializers.values():
        if not value.is_graph_input():
            _describe(proto.graph.input, value)
        if value.const_value is not None and value.const_value.nbytes <= largest:
            tensor = proto.graph.initializer.add()
            ir.serde.serialize_tensor_into(tensor, value.const_value)
            tensor.name = str(value.name)  # it may have one of its own
    for node in graph:
        ir.serde.serialize_node_into(proto.graph.node.add(), node, model_ir_version=model.ir_version)
        for value in node.outputs:
            if value.name and value.type is not None and not value.is_graph_output():
                _describe(proto.graph.value_info, value)
    for value in graph.outputs:
        _describe(proto.graph.output, value)
    return proto


def _describe(infos: RepeatedCompositeFieldContainer[onnx.ValueInfoProto], value: ir.Value) -> None:
    """Add the name of ``value`` to ``infos``, with its type and shape where they are known; a constant's always are."""
    info, kind, shape = infos.add(name=value.name), value.type, value.shape
    if value.const_value is not None:
        kind = ir.TensorType(value.const_value.dtype) if kind is None else kind
        shape = value.const_value.shape if shape is None else shape  # type: ignore[assignment]
    if kind is None:
        return
    if not isinstance(kind, ir.TensorType):
        ir.serde.serialize_value_into(info, value)
        return
    info.type.tensor_type.elem_type = kind.dtype.value
    if shape is None:
        return
    written = info.type.tensor_type.shape
    written.SetInParent()  # a number's has no axis
    for size in shape:
        axis = written.dim.add()
        if isinstance(size, int):
            axis.dim_value = size
        elif size.value is not None:
            axis.dim_param = size.value


def sizes_in(info: onnx.ValueInfoProto) -> list[int | str | None] | None:
    """Return the shape of a tensor, in numbers and names, None for what is open; None where ``info`` says no shape."""
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    return [
        axis.dim_value if axis.HasField("dim_value") else axis.dim_param if axis.HasField("dim_param") else None
        for axis in info.type.tensor_type.shape.dim
    ]
