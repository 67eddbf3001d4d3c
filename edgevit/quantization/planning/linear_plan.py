"""Decide how each Linear layer is quantized, from what calibration saw: the scales of a plan, and what stays float."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgevit.errors import BundleError, DataError
from edgevit.graph.heads import head_layers
from edgevit.graph.linears import LinearLayer, depends_on_images, find_linears
from edgevit.quantization.arithmetic import Scheme, activation_parameters, symmetric_parameters, weight_scales
from edgevit.quantization.calibration.calibration_table import CalibrationTable, TensorStatistics
from edgevit.quantization.plan import LinearPlan, LinearQuantization, QuantizationPlan
from edgevit.recipes import Observer

#: Why layers of a head stay float, see ``graph.heads``.
HEAD = "it is of the head, behind the last block, which is left in float: it is less than half of the work"


def make_plan(
    model: ir.Model, table: CalibrationTable, *, scheme: Scheme = "asymmetric", observer: Observer = "minmax"
) -> QuantizationPlan:
    """Decide how each Linear layer of the float32 ``model`` is quantized, from what was calibrated on it.

    Activations: the range that ``observer`` reads off the table, asymmetric (unsigned, the range widened to hold 0) or
    symmetric (signed, its largest magnitude). Weights: signed, symmetric, per output. Layers that gain nothing stay
    float: those with one output, and those whose input is the same for all images; OpenVINO would not show them as
    layers of integers. So do those of a head that gives several outputs, or a map.

    Raises:
        BundleError: if the table lacks a layer.
        DataError: if the table saw no images.
        GraphError: if the model has no Linear layers.

    """
    if table.images < 1:
        raise DataError("the calibration table saw no images", remedy="calibrate again with images")
    return QuantizationPlan(
        source_sha256=table.model_sha256,
        images=table.images,
        images_sha256=table.images_sha256,
        observer=observer,
        linears=plan_linears(model.graph, table.inputs, scheme, observer),
    )


def plan_linears(
    graph: ir.Graph, inputs: Mapping[str, TensorStatistics], scheme: Scheme, observer: Observer
) -> tuple[LinearPlan, ...]:
    """Return how each Linear layer of ``graph`` is quantized, as ``make_plan`` decides it, in the order of the graph.

    Raises:
        BundleError: if a layer is not among the ``inputs`` that were seen.
        GraphError: if the graph has no Linear layers.

    """
    layers = find_linears(graph)
    missing = [layer.name for layer in layers if layer.name not in inputs]
    if missing:
        raise BundleError(
            f"the calibration table lacks '{missing[0]}' and {len(missing) - 1} other layers",
            remedy="calibrate again with `edgevit quantize`",
        )
    heads = head_layers(graph)
    return tuple(
        LinearPlan(name=layer.name, layer=_layer(layer), quantization=None, fallback=reason)
        if (reason := _float_reason(layer) or (HEAD if layer.of in heads else None)) is not None
        else _plan_layer(layer, inputs[layer.name], scheme, observer)
        for layer in layers
    )


def _layer(layer: LinearLayer) -> str | None:
    return None if layer.of == layer.name else layer.of


def _float_reason(layer: LinearLayer) -> str | None:
    """Return why a layer stays float whatever it has seen; None if it is quantized."""
    if not depends_on_images(layer.input):
        return "its input is the same for all images, so that an engine can compute it beforehand"
    if layer.weight.shape[1] == 1:
        return "it has one output: not every engine has an integer kernel for it, and it takes next to no time"
    return None


def _plan_layer(layer: LinearLayer, statistics: TensorStatistics, scheme: Scheme, observer: Observer) -> LinearPlan:
    rule = activation_parameters if scheme == "asymmetric" else symmetric_parameters
    parameters = rule(*statistics.range(observer, scheme))
    if parameters is None:
        reason = (
            f"its input stayed within {max(abs(statistics.minimum), abs(statistics.maximum)):g} of 0 on every image"
        )
        return LinearPlan(name=layer.name, layer=_layer(layer), quantization=None, fallback=reason)
    scale, zero_point = parameters
    return LinearPlan(
        name=layer.name,
        layer=_layer(layer),
        quantization=LinearQuantization(
            activation_scale=float(scale),
            activation_zero_point=int(zero_point),
            activation_type="uint8" if scheme == "asymmetric" else "int8",
            weight_scales=tuple(weight_scales(layer.weight).tolist()),
        ),
    )
