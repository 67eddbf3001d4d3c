"""Store and compute in float32 what a file has in another type of floats."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

#: Types that become float32: the values of the first two exactly, those of double rounded.
OTHER_FLOATS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)

#: Attributes that say which type an operator gives.
_TYPES = ("dtype", "to")


class ToFloat32(ir.passes.InPlacePass):
    """Makes float32 of float16, bfloat16 and double: weights, inputs, outputs, and what operators make.

    The functions of the graph stay, but for rounding: what was rounded to float16 on its way is not any more.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change types."""
        changed = False
        for graph in model.graphs():
            for value in graph.initializers.values():
                if value.const_value is not None and value.const_value.dtype in OTHER_FLOATS:
                    value.const_value = _cast(value.const_value)
                    changed = True
                changed |= _retype(value)
            for value in (*graph.inputs, *graph.outputs):
                changed |= _retype(value)
        for node in model.graph.all_nodes():
            changed |= sum(map(_retype, node.outputs)) > 0  # all of them, where any() would stop
            changed |= sum(_change(node, attribute) for attribute in list(node.attributes.values())) > 0
        return ir.passes.PassResult(model, modified=changed)


def _cast(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _retype(value: ir.Value) -> bool:
    if value.dtype not in OTHER_FLOATS:
        return False
    value.type = ir.TensorType(ir.DataType.FLOAT)
    return True


def _change(node: ir.Node, attribute: ir.Attr) -> bool:
    """Change what an attribute says of types, and the constant that it is; say whether it did."""
    if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in OTHER_FLOATS:
        node.attributes[attribute.name] = ir.AttrTensor(attribute.name, _cast(attribute.as_tensor()))
        return True
    kinds = [kind.value for kind in OTHER_FLOATS]
    if attribute.name in _TYPES and attribute.type == ir.AttributeType.INT and attribute.as_int() in kinds:
        node.attributes[attribute.name] = ir.AttrInt64(attribute.name, ir.DataType.FLOAT.value)
        return True
    return False
