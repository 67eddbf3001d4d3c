"""Plan convolutions as Linear layers are planned: ranges from calibration, one weight scale for each output channel.

Weights go to the nearest integer, and the bias takes up what that changes of the mean (Nagel et al. 2019): the
convolutions of hybrids are many and small, and what their activations lose is more. For that there is a second form of
each, whose input is divided channel by channel, as those of Linear layers are: for engines with which that costs
little. The weight stays in the model as it was, so that a dialect in which integers do not pay convolves by that.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.convolutions import Convolution, find_convolutions
from edgevit.graph.heads import head_layers
from edgevit.graph.linears import depends_on_images
from edgevit.graph.patches import groups
from edgevit.quantization.arithmetic import activation_parameters, dequantize, quantize_array, weight_scales
from edgevit.quantization.calibration.calibration_table import CalibrationTable, TensorStatistics
from edgevit.quantization.plan import ConvolutionPlan, EqualizedInput, LinearQuantization
from edgevit.quantization.planning.linear_plan import HEAD
from edgevit.quantization.planning.smoothing import HEADROOM, choose_migration, reach_of
from edgevit.recipes import Alpha, Observer


def plan_convolutions(
    model: ir.Model, table: CalibrationTable, observer: Observer, alpha: Alpha = 1.0
) -> tuple[ConvolutionPlan, ...]:
    """Return how each convolution of ``model`` is computed in integers, by what calibration saw of it.

    ``alpha`` says how much of the range of an input's channel goes into the weight, where inputs are divided.

    Activations are unsigned. One that was not seen, or whose input or output was 0 on all images, stays float, and so
    do those of a head that gives several outputs, or a map.
    """
    heads = head_layers(model.graph)
    return tuple(
        _float(each, HEAD) if each.name in heads else _plan(each, table, observer, alpha)
        for each in find_convolutions(model.graph)
    )


def rows_of(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``weight`` (M, C / groups, ...kernel) as that of a Linear layer (K, M)."""
    return np.ascontiguousarray(weight.reshape(len(weight), -1).T)


def of_divided(convolution: Convolution, divisors: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return the weight with which ``convolution`` gives the same where its input is divided by ``divisors`` (C,)."""
    weight = convolution.weight
    if divisors is None:
        return weight
    per_group = weight.shape[1]
    factors = divisors.reshape(-1, per_group)[_group(convolution)].reshape(-1, per_group, *[1] * (weight.ndim - 2))
    return (weight * factors).astype(np.float32)


def _plan(convolution: Convolution, table: CalibrationTable, observer: Observer, alpha: Alpha) -> ConvolutionPlan:
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
    return ConvolutionPlan(
        name=convolution.name,
        depthwise=convolution.depthwise,
        output_scale=float(output[0]),
        output_zero_point=int(output[1]),
        quantization=_quantization(convolution, parameters, seen),
        equalized=_equalized(convolution, seen, alpha) if observer == "minmax" else None,
    )


def _float(convolution: Convolution, reason: str) -> ConvolutionPlan:
    return ConvolutionPlan(name=convolution.name, depthwise=convolution.depthwise, quantization=None, fallback=reason)


def _equalized(convolution: Convolution, seen: TensorStatistics, alpha: Alpha) -> EqualizedInput | None:
    """Return the form whose input is divided; None where that is not wanted, or there is one channel.

    Pixels stay: of 256 levels as they are, eight bits lose nothing. What another convolution gives as it is stays, too:
    OpenVINO takes the division into that one's weight, which is none that it multiplies in integers then.
    """
    channels, plain = seen.channels, groups(convolution.node) == 1
    if channels is None or alpha == "off" or convolution.input.is_graph_input() or len(channels.mean) == 1:
        return None
    producer = convolution.input.producer()
    if not (plain or convolution.depthwise) or (producer is not None and producer.op_type == "Conv"):
        return None
    reach = reach_of(channels)
    wanted = reach  # where each output has a scale of its own, the weight loses nothing
    if plain:
        weight = np.moveaxis(convolution.weight, 1, 0).reshape(len(reach), -1)
        wanted = choose_migration(channels, [weight], shiftable=False, alpha=alpha).scale
    divisors = wanted.astype(np.float32)
    high = float((reach / divisors).max())
    low = max(-high, HEADROOM * float((channels.minimum / divisors).min()))
    parameters = activation_parameters(low, high)
    if parameters is None:
        return None
    quantization = _quantization(convolution, parameters, seen, divisors)
    return EqualizedInput(divisors=tuple(divisors.tolist()), quantization=quantization)


def _quantization(
    convolution: Convolution,
    parameters: tuple[np.float32, np.uint8],
    seen: TensorStatistics,
    divisors: NDArray[np.float32] | None = None,
) -> LinearQuantization:
    """Return the scales of ``convolution`` for an input, divided if need be, with the scale and zero point given."""
    rows = rows_of(of_divided(convolution, divisors))
    scales = weight_scales(rows)
    correction = np.zeros(len(scales))
    if seen.channels is not None:
        mean = seen.channels.mean if divisors is None else seen.channels.mean / divisors
        correction = _correction(convolution, rows, scales, mean)
    return LinearQuantization(
        activation_scale=float(parameters[0]),
        activation_zero_point=int(parameters[1]),
        weight_scales=tuple(scales.tolist()),
        bias_correction=tuple(correction.tolist()),
    )


def _correction(
    convolution: Convolution, rows: NDArray[np.float32], scales: NDArray[np.float32], mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what rounding the weight ``rows`` takes away from the mean of each output (M,), but for images' edges.

    ``mean`` is that of the input's channels (C,).
    """
    lost = rows.astype(np.float64) - dequantize(quantize_array(rows, scales, np.int8(0)), scales, np.int8(0))
    outputs, per_group = convolution.weight.shape[:2]
    by_channel = lost.T.reshape(outputs, per_group, -1).sum(axis=2)
    correction: NDArray[np.float64] = (by_channel * mean.reshape(-1, per_group)[_group(convolution)]).sum(axis=1)
    return correction


def _group(convolution: Convolution) -> NDArray[np.intp]:
    """Return to which group of channels each output belongs (M,)."""
    outputs = len(convolution.weight)
    return np.arange(outputs) // (outputs // groups(convolution.node))
