"""Give layers of a prepared model back to float."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgevit.backends.base import layer_of
from edgevit.files import sha256_of
from edgevit.quantization.linears import find_linears, open_graph
from edgevit.quantization.plan import LinearPlan
from edgevit.quantization.prepare import Prepared
from edgevit.quantization.rewrites.apply import save
from edgevit.quantization.rewrites.constants import set_linear


def return_to_float(prepared: Prepared, unrounded: Path, reasons: Mapping[str, str], path: Path) -> Prepared:
    """Write the ``prepared`` model to ``path`` with the layers that ``reasons`` names in float, and say so in its plan.

    These get their weights back from ``unrounded``, the model before its weights were rounded; what was added to their
    biases for the rounding is part of the plan, and goes with it.

    Raises:
        GraphError: if a file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written.

    """
    with open_graph(unrounded) as model:
        weights = {layer.name: layer.weight for layer in find_linears(model.graph) if layer_of(layer.name) in reasons}
    with open_graph(prepared.model) as model:
        for layer in find_linears(model.graph):
            if layer.name in weights:
                set_linear(model.graph, layer, weights[layer.name], layer.bias)
        save(model, path)
    linears = tuple(
        LinearPlan(name=linear.name, quantization=None, fallback=reasons[layer_of(linear.name)])
        if layer_of(linear.name) in reasons
        else linear
        for linear in prepared.plan.linears
    )
    return Prepared(path, msgspec.structs.replace(prepared.plan, model_sha256=sha256_of(path), linears=linears))
