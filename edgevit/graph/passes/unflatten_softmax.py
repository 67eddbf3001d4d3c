"""Let a softmax read what it is of, where a converter has put two axes around it."""

from __future__ import annotations

import onnx_ir as ir


class UnflattenSoftmax(ir.passes.InPlacePass):
    """Takes away Reshape in front of and behind a Softmax over the last axis, where that stays as long as it is.

    Before opset 13 a Softmax flattens what it reads to two axes; onnx's converter writes that out, also where it
    changes nothing. Values must have shapes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        changed = [_unflatten(node) for node in model.graph if node.op_type == "Softmax" and not node.domain]
        return ir.passes.PassResult(model, modified=any(changed))


def _unflatten(softmax: ir.Node) -> bool:
    given, output = softmax.inputs[0], softmax.outputs[0]
    front = None if given is None else given.producer()
    users = [user for user, _ in output.uses()]
    if front is None or front.op_type != "Reshape" or len(users) != 1 or users[0].op_type != "Reshape":
        return False
    value, restored = front.inputs[0], users[0].outputs[0]
    if value is None or value.shape is None or given is None or given.shape is None or restored.is_graph_output():
        return False
    axis = softmax.attributes.get_int("axis", -1)
    over_last = axis in (-1, len(given.shape) - 1)
    if not over_last or value.shape != restored.shape or value.shape[-1] != given.shape[-1]:
        return False
    softmax.replace_input_with(0, value)
    softmax.attributes["axis"] = ir.AttrInt64("axis", -1)
    output.shape = value.shape
    restored.replace_all_uses_with(output)
    return True
