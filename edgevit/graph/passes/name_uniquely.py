"""Give every node and value a name of its own."""

from __future__ import annotations

import re

import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.graph.metadata import INPUT, OUTPUT

_ODD = re.compile(r"[^A-Za-z0-9_./:[\]-]")
_LONGEST = 200


class NameUniquely(ir.passes.InPlacePass):
    """Calls the one input ``images``, the one output ``logits``, and gives all else a name that nothing else has.

    In files of others, nodes may have no names, or share them. What a terminal obeys has no place in a name, and
    becomes an underscore.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename."""
        graph = model.graph
        (graph.inputs[0].name,), (graph.outputs[0].name,) = (INPUT,), (OUTPUT,)
        for node in graph:
            node.name = _ODD.sub("_", node.name or "")[:_LONGEST] or None
        common.NameFixPass()(model)
        return ir.passes.PassResult(model, modified=True)
