"""Drop what the exporter noted at values."""

from __future__ import annotations

import onnx_ir as ir


class ClearValueMetadata(ir.passes.InPlacePass):
    """Removes metadata of inputs, constants and values; onnx-ir's own pass removes that of nodes and graphs only.

    torch.onnx leaves its bookkeeping there, which means nothing to whoever gets the file.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Clear the metadata."""
        graph = model.graph
        values = [*graph.inputs, *graph.initializers.values(), *(output for node in graph for output in node.outputs)]
        marked = [value for value in values if value.metadata_props]
        for value in marked:
            value.metadata_props.clear()
        return ir.passes.PassResult(model, modified=bool(marked))
