"""A classifier's ONNX file again, as programs take it that have pixels and want probabilities."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgevit.data.preprocess import Preprocess
from edgevit.graph.linears import load_graph
from edgevit.graph.passes.classify_pixels import GiveProbabilities, NormalizePixels
from edgevit.models.spec import OutputActivation


def write_pixel_classifier(model: Path, path: Path, preprocess: Preprocess, activation: OutputActivation) -> str:
    """Write the classifier ``model`` to ``path`` with pixels (B, C, H, W) in, 0..255 in float32, and probabilities out.

    Return the name of its input.

    Raises:
        GraphError: if the file cannot be read, or has another input or more outputs.

    """
    graph = load_graph(model)
    NormalizePixels(preprocess)(graph)
    GiveProbabilities(activation)(graph)
    graph.metadata_props.pop("edgevit.preprocess", None)  # the file does it itself from now on
    ir.save(graph, path)
    return str(graph.graph.inputs[0].name)
