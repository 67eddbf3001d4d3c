"""Give layers of a prepared model back to float: for good, or in the dialect whose engine has no kernel for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.backends.base import layer_of
from edgevit.files import sha256_of
from edgevit.graph.constants import set_linear
from edgevit.graph.editing import add_constant, node_like
from edgevit.graph.linears import LinearLayer, find_linears, open_graph
from edgevit.quantization.plan import FloatIn, LinearPlan, QuantizationPlan
from edgevit.quantization.ptq import PtqModel
from edgevit.quantization.rewrites.apply import save


def revert_to_float(prepared: PtqModel, unrounded: Path, reasons: Mapping[str, str], path: Path) -> PtqModel:
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
    return _in_float(prepared, reasons, path)


def float_in(prepared: PtqModel, dialect: str, path: Path) -> PtqModel:
    """Write to ``path`` what ``dialect`` is written from: the ``prepared`` model, less what its plan keeps float there.

    Such a layer multiplies in float by the weights that were rounded, and adds the bias that makes up for that: it
    needs neither the images nor the unrounded model. Where there is none, ``prepared`` itself is returned.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers.
        StorageError: if the file cannot be written.

    """
    reasons = {
        layer_of(linear.name): each.reason
        for linear in prepared.plan.linears
        for each in linear.float_in
        if each.dialect == dialect
    }
    if not reasons:
        return prepared
    corrections = {
        linear.name: np.array(linear.quantization.bias_correction, dtype=np.float32)
        for linear in prepared.plan.linears
        if layer_of(linear.name) in reasons and linear.quantization is not None and linear.quantization.bias_correction
    }
    with open_graph(prepared.model) as model:
        for layer in find_linears(model.graph):
            if layer.name in corrections:
                _add_to_bias(model.graph, layer, corrections[layer.name])
        save(model, path)
    return _in_float(prepared, reasons, path)


def note_float_in(plan: QuantizationPlan, dialect: str, reasons: Mapping[str, str]) -> QuantizationPlan:
    """Return ``plan`` with the layers that ``reasons`` names in float in ``dialect``."""
    linears = tuple(
        msgspec.structs.replace(
            linear, float_in=(*linear.float_in, FloatIn(dialect=dialect, reason=reasons[layer_of(linear.name)]))
        )
        if layer_of(linear.name) in reasons and linear.quantization is not None
        else linear
        for linear in plan.linears
    )
    return msgspec.structs.replace(plan, linears=linears)


def why_float(kernels: Mapping[str, str | None], engine: str) -> dict[str, str]:
    """Return for each layer in ``kernels`` why ``engine`` has it in float, where None is a kernel that is not shown."""
    return {
        name: f"{engine} runs it in float ({kernel})" if kernel else f"{engine} shows no integer kernel for it"
        for name, kernel in kernels.items()
    }


def _add_to_bias(graph: ir.Graph, layer: LinearLayer, correction: NDArray[np.float32]) -> None:
    if layer.bias is not None:
        set_linear(graph, layer, layer.weight, layer.bias + correction)
        return
    if layer.product.op_type == "Gemm":
        set_linear(graph, layer, layer.weight, correction)
        return
    bias, old = add_constant(graph, f"{layer.name}.bias", correction), layer.output
    added = node_like(f"{layer.name}.add_bias", "Add", [old, bias], old)
    ir.convenience.replace_all_uses_with(old, added.outputs[0], replace_graph_outputs=True)
    added.replace_input_with(0, old)
    if added.outputs[0].is_graph_output():  # it has the name that is asked for
        old.name, added.outputs[0].name = f"{layer.name}.product", old.name
    graph.insert_after(layer.product, added)


def _in_float(prepared: PtqModel, reasons: Mapping[str, str], path: Path) -> PtqModel:
    """Return the model that was written to ``path`` with a plan that leaves the layers in ``reasons`` float."""
    linears = tuple(
        LinearPlan(name=linear.name, quantization=None, fallback=reasons[layer_of(linear.name)])
        if layer_of(linear.name) in reasons
        else linear
        for linear in prepared.plan.linears
    )
    return PtqModel(path, msgspec.structs.replace(prepared.plan, model_sha256=sha256_of(path), linears=linears))
