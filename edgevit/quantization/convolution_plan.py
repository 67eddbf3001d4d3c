"""Plan convolutions as Linear layers are planned: ranges from calibration, one weight scale for each output channel.

Weights go to the nearest integer, and the bias takes up what that changes of the mean (Nagel et al. 2019): the
convolutions of hybrids are many and small, and what their activations lose is more. Each keeps its weight in the model
as it was, so that a dialect in which integers do not pay convolves by that.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.convolutions import Convolution, find_convolutions
from edgevit.graph.heads import head_layers
from edgevit.graph.linears import depends_on_images
from edgevit.graph.patches import groups
from edgevit.quantization.arithmetic import activation_parameters, dequantize, quantize, weight_scales
from edgevit.quantization.calibration.statistics import CalibrationTable, TensorStatistics
from edgevit.quantization.plan import HEAD, ConvolutionPlan, LinearQuantization
from edgevit.recipes import Observer


def plan_convolutions(model: ir.Model, table: CalibrationTable, observer: Observer) -> tuple[ConvolutionPlan, ...]:
    """Return how each convolution of ``model`` is computed in integers, by what calibration saw of it.

    Activations are unsigned. One that was not seen, or whose input or output was 0 on all images, stays float, and so
    do those of a head that gives several outputs, or a map.
    """
    heads = head_layers(model.graph)
    return tuple(
        _float(each, HEAD) if each.name in heads else _plan(each, table, observer)
        for each in find_convolutions(model.graph)
    )


def rows_of(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``weight`` (M, C / groups, ...kernel) as that of a Linear layer (K, M)."""
    return np.ascontiguousarray(weight.reshape(len(weight), -1).T)


def _plan(convolution: Convolution, table: CalibrationTable, observer: Observer) -> ConvolutionPlan:
    seen, given = table.inputs.get(convolution.name), table.outputs.get(convolution.name)
    if seen is None or given is None:
        return _float(convolution, "calibration has not seen it")
    if not depends_on_images(convolution.input):
        return _float(convolution, "its input is the same for all images")
    parameters = activation_parameters(*seen.range(observer))
    output = activation_parameters(*given.range(observer))
    if parameters is None or output is None:
        what = "input" if parameters is None else "output"
        return _float(convolution, f"its {what} was next to 0 on every image")
    scales = weight_scales(rows_of(convolution.weight))
    return ConvolutionPlan(
        name=convolution.name,
        depthwise=convolution.depthwise,
        output_scale=float(output[0]),
        output_zero_point=int(output[1]),
        quantization=LinearQuantization(
            activation_scale=float(parameters[0]),
            activation_zero_point=int(parameters[1]),
            weight_scales=tuple(scales.tolist()),
            bias_correction=tuple(_correction(convolution, scales, seen).tolist()),
        ),
    )


def _float(convolution: Convolution, reason: str) -> ConvolutionPlan:
    return ConvolutionPlan(name=convolution.name, depthwise=convolution.depthwise, quantization=None, fallback=reason)


def _correction(convolution: Convolution, scales: NDArray[np.float32], seen: TensorStatistics) -> NDArray[np.float64]:
    """Return what rounding the weight takes away from the mean of each output (M,), the edges of images left out."""
    if seen.channels is None:
        return np.zeros(len(convolution.weight))
    rows = rows_of(convolution.weight)
    lost = rows.astype(np.float64) - dequantize(quantize(rows, scales, np.int8(0)), scales, np.int8(0))
    outputs, per_group = convolution.weight.shape[:2]
    by_channel = lost.T.reshape(outputs, per_group, -1).sum(axis=2)
    group = np.arange(outputs) // (outputs // groups(convolution.node))
    means = seen.channels.mean.reshape(-1, per_group)[group]
    correction: NDArray[np.float64] = (by_channel * means).sum(axis=1)
    return correction
