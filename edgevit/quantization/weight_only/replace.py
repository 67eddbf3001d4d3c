"""Write a model with another form of each of its Linear layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgevit.graph.editing import replace_layer
from edgevit.graph.linears import LinearLayer, find_linears
from edgevit.graph.saving import SavedModel, tidy
from edgevit.quantization.engine_file import save_for_engine


@dataclass(frozen=True, slots=True)
class Replaced:
    """The file that was written, and the names of the layers that have another form in it."""

    file: SavedModel
    layers: tuple[str, ...]


def replace_linears(
    model: ir.Model,
    path: Path,
    replacement: Callable[[ir.Graph, LinearLayer], Sequence[ir.Node]],
    *further: Callable[[ir.Graph], None],
) -> Replaced:
    """Write the float32 ``model``, which is used up, to ``path`` with another form of each Linear layer.

    ``replacement`` gives the nodes for a layer; the last one gives its output. ``further`` changes follow.

    Raises:
        GraphError: if it has no Linear layers.
        StorageError: if the file cannot be written; what was at ``path`` before is still there.

    """
    layers = find_linears(model.graph)
    for layer in layers:
        replace_layer(model.graph, layer, replacement(model.graph, layer))
    tidy(model)
    for change in further:
        change(model.graph)
    return Replaced(save_for_engine(model, path).file, tuple(layer.name for layer in layers))
