"""Revert layers of an optimized model to float: for good, or in the dialect whose engine has no kernel for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.editing import add_bias, set_linear
from edgevit.graph.linears import LinearLayer, find_linears
from edgevit.quantization.plan import FloatIn, LinearPlan, LinearQuantization, QuantizationPlan
from edgevit.quantization.ptq import PtqModel

AnyPlan = TypeVar("AnyPlan", bound=LinearPlan)


def revert_to_float(ptq: PtqModel, reasons: Mapping[str, str]) -> PtqModel:
    """Return ``ptq`` with the layers that ``reasons`` names in float; it stays as it is.

    Linear layers get back the weights that they had before rounding, which ``ptq`` must have kept; those of
    convolutions are not rounded in the model. What was added to biases for the rounding is part of the plan, and goes
    with it.
    """
    model = ptq.model.clone()
    for layer in find_linears(model.graph):
        if layer.of in reasons:
            set_linear(model.graph, layer, ptq.unrounded[layer.of], layer.bias)
    return _in_float(PtqModel(model, ptq.plan, ptq.unrounded), reasons)


def float_in(ptq: PtqModel, dialect: str) -> PtqModel:
    """Return what ``dialect`` is written from: ``ptq``, less what its plan keeps float there.

    Such a Linear layer multiplies in float by the weights that were rounded, and adds the bias that makes up for that:
    it needs neither the images nor the weights before rounding. Where there is none, ``ptq`` itself is returned.
    """
    layers = (*ptq.plan.linears, *ptq.plan.convolutions)
    reasons = {layer.of: each.reason for layer in layers for each in layer.float_in if each.dialect == dialect}
    if not reasons:
        return ptq
    corrections = {
        linear.name: _of_weights(linear.quantization)
        for linear in ptq.plan.linears
        if linear.of in reasons and linear.quantization is not None and linear.quantization.bias_correction
    }
    model = ptq.model.clone()
    for layer in find_linears(model.graph):
        if layer.name in corrections:
            _add_to_bias(model.graph, layer, corrections[layer.name])
    return _in_float(PtqModel(model, ptq.plan, ptq.unrounded), reasons)


def note_float_in(plan: QuantizationPlan, dialect: str, reasons: Mapping[str, str]) -> QuantizationPlan:
    """Return ``plan`` with the layers that ``reasons`` names in float in ``dialect``."""

    def noted(layer: AnyPlan) -> AnyPlan:
        if layer.of not in reasons or layer.quantization is None:
            return layer
        why = FloatIn(dialect=dialect, reason=reasons[layer.of])
        return msgspec.structs.replace(layer, float_in=(*layer.float_in, why))

    return msgspec.structs.replace(
        plan, linears=tuple(map(noted, plan.linears)), convolutions=tuple(map(noted, plan.convolutions))
    )


def float_reasons(kernels: Mapping[str, str | None], engine: str) -> dict[str, str]:
    """Return for each layer in ``kernels`` why ``engine`` has it in float, where None is a kernel that is not shown."""
    return {
        name: f"{engine} runs it in float ({kernel})" if kernel else f"{engine} shows no integer kernel for it"
        for name, kernel in kernels.items()
    }


def _of_weights(quantization: LinearQuantization) -> NDArray[np.float32]:
    """Return what makes up for the rounding of a layer's weight alone."""
    correction = np.array(quantization.bias_correction)
    if len(quantization.input_correction) == len(correction):  # else the layer has a residual product, which has it
        correction = correction - np.array(quantization.input_correction)
    return correction.astype(np.float32)


def _add_to_bias(graph: ir.Graph, layer: LinearLayer, correction: NDArray[np.float32]) -> None:
    if layer.bias is not None:
        set_linear(graph, layer, layer.weight, layer.bias + correction)
    elif layer.matmul.op_type == "Gemm":
        set_linear(graph, layer, layer.weight, correction)
    else:
        add_bias(graph, layer, correction)


def _in_float(ptq: PtqModel, reasons: Mapping[str, str]) -> PtqModel:
    """Return ``ptq`` with a plan that leaves the layers in ``reasons`` float."""

    def reverted(layer: AnyPlan) -> AnyPlan:
        if layer.of not in reasons:
            return layer
        return msgspec.structs.replace(layer, quantization=None, fallback=reasons[layer.of], float_in=())

    plan = msgspec.structs.replace(
        ptq.plan,
        linears=tuple(map(reverted, ptq.plan.linears)),
        convolutions=tuple(map(reverted, ptq.plan.convolutions)),
    )
    return PtqModel(ptq.model, plan, ptq.unrounded)
