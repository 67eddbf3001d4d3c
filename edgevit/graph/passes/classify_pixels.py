"""Make a classifier that takes pixels as other programs have them, and gives probabilities."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.data.preprocess import Preprocess
from edgevit.errors import GraphError
from edgevit.graph.editing import add_constant
from edgevit.models.spec import OutputActivation

#: What the output is called afterwards.
PROBABILITIES = "probabilities"


class NormalizePixels(ir.passes.InPlacePass):
    """Turns an input of normalised float32 images (B, C, H, W) into one of their pixels, 0..255 in float32.

    Two nodes in front do what ``Preprocess.normalize`` does, with the same constants.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self._preprocess = preprocess

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph.

        Raises:
            GraphError: if its input is not float32 images alone.

        """
        graph = model.graph
        inputs = [value for value in graph.inputs if not value.is_initializer()]
        if [value.dtype for value in inputs] != [ir.DataType.FLOAT]:
            raise GraphError("the model's input is not float32 images alone", remedy="give another --variant")
        (images,) = inputs
        mean, std = (np.asarray(each, dtype=np.float64) for each in (self._preprocess.mean, self._preprocess.std))
        consumers = list(images.uses())
        scale, shift = (
            add_constant(graph, f"{images.name}.{name}", values.astype(np.float32).reshape(1, -1, 1, 1))
            for name, values in (("scale", 1 / (255 * std)), ("shift", mean / std))
        )
        scaled = ir.node("Mul", [images, scale], name=f"{images.name}.scaled")
        normalized = ir.node("Sub", [scaled.outputs[0], shift], name=f"{images.name}.normalized")
        for node in (scaled, normalized):
            node.outputs[0].name = node.name
            node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, images.shape
        for consumer, index in consumers:
            consumer.replace_input_with(index, normalized.outputs[0])
        first = graph[0]
        graph.insert_before(first, [scaled, normalized])
        return ir.passes.PassResult(model, modified=True)


class GiveProbabilities(ir.passes.InPlacePass):
    """Adds to a classifier of logits (B, classes) what makes float32 probabilities of them, as its only output."""

    def __init__(self, activation: OutputActivation) -> None:
        super().__init__()
        self._activation = activation

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph.

        Raises:
            GraphError: if it has several outputs.

        """
        graph = model.graph
        if len(graph.outputs) != 1:
            raise GraphError(
                f"the model has {len(graph.outputs)} outputs, not one of logits", remedy="give a classifier"
            )
        logits = graph.outputs[0]
        nodes = []
        if logits.dtype not in (ir.DataType.FLOAT, None):
            nodes.append(ir.node("Cast", [logits], {"to": int(ir.DataType.FLOAT)}, name=f"{logits.name}.float32"))
        before = nodes[-1].outputs[0] if nodes else logits
        softmax = self._activation == "softmax"
        nodes.append(
            ir.node("Softmax" if softmax else "Sigmoid", [before], {"axis": -1} if softmax else {}, name=PROBABILITIES)
        )
        for node in nodes:
            node.outputs[0].name = node.name
            node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, logits.shape
        graph.extend(nodes)
        graph.outputs[0] = nodes[-1].outputs[0]
        return ir.passes.PassResult(model, modified=True)
