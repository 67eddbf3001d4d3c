"""Write a graph in an older opset."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir

from edgevit.errors import GraphError
from edgevit.graph.editing import add_constant

#: Whose later versions only take more types, or attributes that are not used here.
_SAME = frozenset(
    (
        "Cast",
        "ConstantOfShape",
        "DequantizeLinear",
        "Equal",
        "Flatten",
        "Identity",
        "IsNaN",
        "QuantizeLinear",
        "Reshape",
        "Shape",
        "Size",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
)
_PADS_ALL = 2  # inputs of a Pad that names all axes: the values, and how many zeros go around them
_IR_VERSION = 8  # what parsers of opset 17's time read


class LowerOpset(ir.passes.InPlacePass):
    """Rewrites a graph of opset 20 at most in an older one, 17 at the least: Gelu by Erf, Split without a count.

    onnx's own converter does not go below 20 where there is a Gelu.
    """

    def __init__(self, opset: int) -> None:
        super().__init__()
        self._opset = opset

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph.

        Raises:
            GraphError: if it has an operator that the older opset does not have in this form.

        """
        before = model.opset_imports[""]
        if before <= self._opset:
            return ir.passes.PassResult(model, modified=False)
        for node in list(model.graph):
            self._lower(model.graph, node, before)
        model.graph.opset_imports[""] = self._opset
        model.ir_version = min(model.ir_version, _IR_VERSION)
        return ir.passes.PassResult(model, modified=True)

    def _lower(self, graph: ir.Graph, node: ir.Node, before: int) -> None:
        if node.op_type == "Gelu":
            _gelu_by_erf(graph, node)
        elif node.op_type == "Split":
            node.attributes.pop("num_outputs", None)  # equal parts, as many as there are outputs
        elif node.op_type == "Pad" and len(node.inputs) <= _PADS_ALL and not node.attributes:
            pass  # with zeros, and no axes, which are new
        elif node.op_type == "ReduceMean":
            _axes_as_attribute(node)
        elif node.op_type not in _SAME and self._changed(node, before):
            raise GraphError(
                f"'{node.name}' ({node.op_type}) cannot be written in opset {self._opset}",
                remedy="use --dialect tensorrt, for TensorRT 10.12 and later",
            )
        node.version = None

    def _changed(self, node: ir.Node, before: int) -> bool:
        return _since(node, self._opset) != _since(node, before)


def _since(node: ir.Node, opset: int) -> int | None:
    """Return the opset since which ``node``'s operator is what it is in ``opset``, None if it is not there."""
    try:
        version: int = onnx.defs.get_schema(node.op_type, opset, node.domain).since_version
    except onnx.defs.SchemaError:
        return None
    return version


def _axes_as_attribute(node: ir.Node) -> None:
    """Give a ReduceMean its axes as opset 17 does, as an attribute."""
    axes = ir.convenience.get_const_tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    if len(node.inputs) > 1 and (axes is None or not axes.size):
        raise GraphError(f"'{node.name}' (ReduceMean) computes its axes", remedy="export the model with constant ones")
    if axes is not None:
        node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes.numpy().reshape(-1)])
        node.resize_inputs(1)


def _gelu_by_erf(graph: ir.Graph, node: ir.Node) -> None:
    """Put x / 2 (1 + erf(x / sqrt(2))) in the place of a Gelu."""
    if node.attributes.get_string("approximate", "none") != "none":
        raise GraphError(f"'{node.name}' is an approximate Gelu", remedy="export the model with the exact one")
    x, old = node.inputs[0], node.outputs[0]
    root, one, half = (
        add_constant(graph, f"{node.name}.{name}", np.array(value, dtype=np.float32))
        for name, value in (("root", math.sqrt(2)), ("one", 1.0), ("half", 0.5))
    )
    divided = ir.node("Div", [x, root], name=f"{node.name}.div")
    erf = ir.node("Erf", divided.outputs, name=f"{node.name}.erf")
    added = ir.node("Add", [erf.outputs[0], one], name=f"{node.name}.add")
    product = ir.node("Mul", [x, added.outputs[0]], name=f"{node.name}.mul")
    halved = ir.node("Mul", [product.outputs[0], half], name=f"{node.name}.half")
    nodes = [divided, erf, added, product, halved]
    for each in nodes:
        each.outputs[0].name, each.outputs[0].shape, each.outputs[0].type = f"{each.name}.output", old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, [old], [halved.outputs[0]])
