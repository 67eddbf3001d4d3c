"""Put the branch that is always taken in the place of an If."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.graph.editing import free_name
from edgevit.graph.shapes import ABOUT, probe

_DEEPEST = 8  # branches in branches


class InlineBranches(ir.passes.InPlacePass):
    """Replaces each If whose condition is the same for each number of images in ``sizes``, by the branch it takes.

    Scripted models test sizes, which do not change from image to image. The graph is asked what each condition is; one
    that is computed from pixels stays.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self._sizes = sizes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph."""
        modified = False
        for _ in range(_DEEPEST):
            common.NameFixPass()(model)
            decided = self._decided(model)
            if not decided:
                break
            for node, branch in decided:
                _inline(model.graph, node, branch)
            modified = True
        return ir.passes.PassResult(model, modified=modified)

    def _decided(self, model: ir.Model) -> list[tuple[ir.Node, str]]:
        """Return each If that can be replaced, and the name of its branch."""
        graph = model.graph
        of_pixels = _computed_from_pixels(graph)
        conditions = {
            node: node.inputs[0]
            for node in graph
            if node.op_type == "If" and node.inputs[0] is not None and node.inputs[0] not in of_pixels
        }
        seen = probe(model, self._sizes, (), conditions.values()).numbers if conditions else {}
        answers = {node: {bool(np.all(each)) for each in seen[value]} for node, value in conditions.items()}
        branches = {True: "then_branch", False: "else_branch"}
        return [(node, branches[found.pop()]) for node, found in answers.items() if len(found) == 1]


def _computed_from_pixels(graph: ir.Graph) -> set[ir.Value | None]:
    """Return what depends on the values of images, not on their number and size alone; branches read from outside."""
    found: set[ir.Value | None] = set(graph.inputs)
    for node in graph:
        read = {*node.inputs}
        for branch in _branches(node):
            read |= {value for inner in branch.all_nodes() for value in inner.inputs}
        if node.op_type not in ABOUT and not found.isdisjoint(read):
            found.update(node.outputs)
    return found


def _branches(node: ir.Node) -> list[ir.Graph]:
    return [each.as_graph() for each in node.attributes.values() if each.type == ir.AttributeType.GRAPH]


def _inline(graph: ir.Graph, node: ir.Node, name: str) -> None:
    branch = node.attributes[name].as_graph()
    for value in list(branch.initializers.values()):
        branch.initializers.pop(str(value.name))
        value.name = free_name(graph, str(value.name))
        graph.register_initializer(value)
    outputs, nodes = list(branch.outputs), list(branch)
    branch.outputs.clear()
    branch.remove(nodes)
    for old, new in zip(node.outputs, outputs, strict=True):
        if old.is_graph_output():  # a branch may give what lies outside of it, which has a name already
            identity = ir.node("Identity", [new])
            nodes.append(identity)
            new = identity.outputs[0]
            new.name, old.name = old.name, None
            new.shape, new.type = old.shape, old.type
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.insert_before(node, nodes)
    graph.remove(node, safe=True)
