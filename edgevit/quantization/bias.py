"""Bias correction: take out of each layer's bias what rounding adds to its output on average."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.errors import DataError
from edgevit.progress import SILENT, Progress
from edgevit.quantization.arithmetic import dequantize, quantize
from edgevit.quantization.calibrate import ObservedModel, one_by_one
from edgevit.quantization.linears import LinearLayer, find_linears, load_graph
from edgevit.quantization.plan import LinearPlan, LinearQuantization, QuantizationPlan


class _InputMeans:
    """Means over all tokens of a layer's input (K,), as it is and as it comes out of quantization."""

    def __init__(self, quantization: LinearQuantization) -> None:
        self._scale = np.float32(quantization.activation_scale)
        self._zero_point = quantization.zero_point()
        self._float: NDArray[np.float64] | float = 0.0
        self._quantized: NDArray[np.float64] | float = 0.0
        self._tokens = 0

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in the input (..., K) for one image."""
        rows = values.reshape(-1, values.shape[-1])
        rounded = dequantize(quantize(rows, self._scale, self._zero_point), self._scale, self._zero_point)
        self._float = self._float + rows.sum(axis=0, dtype=np.float64)
        self._quantized = self._quantized + rounded.sum(axis=0, dtype=np.float64)
        self._tokens += len(rows)

    def correction(self, weight: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what to add to the bias (N,): the mean of xW less that of the quantized product."""
        rounded = dequantize(quantize(weight, scales, np.int8(0)), scales, np.int8(0))
        correction: NDArray[np.float64] = (self._float @ weight - self._quantized @ rounded) / self._tokens
        return correction


def correct_biases(
    model: Path,
    plan: QuantizationPlan,
    batches: Iterable[NDArray[np.float32]],
    *,
    total: int,
    progress: Progress = SILENT,
) -> QuantizationPlan:
    """Return ``plan`` with a correction of each quantized layer's bias, measured on images (B, C, H, W).

    Clipping and rounding shift a layer's mean output, and a shift, unlike noise, does not cancel further on (Nagel et
    al., Data-Free Quantization, 2019, with calibration images instead of batch norm's statistics). One more pass over
    the images; memory does not grow with their number.

    Raises:
        BundleError: if the plan was made for another model.
        DataError: if there are no images.
        GraphError: if the model cannot be run.

    """
    plan.check_model(model)
    layers = {layer.name: layer for layer in find_linears(load_graph(model).graph)}
    engine = ObservedModel(model)
    means = {linear.name: _InputMeans(linear.quantization) for linear in plan.linears if linear.quantization}
    images = 0
    for image in one_by_one(progress.track(batches, total=total, label="Correcting biases")):
        for name, values in zip(engine.layers, engine.run(image), strict=True):
            if name in means:
                means[name].update(values)
        images += 1
    if not images:
        raise DataError("there are no calibration images", remedy="give at least one image with --data, better 128")
    return msgspec.structs.replace(
        plan, linears=tuple(_corrected(linear, layers[linear.name], means) for linear in plan.linears)
    )


def _corrected(linear: LinearPlan, layer: LinearLayer, means: dict[str, _InputMeans]) -> LinearPlan:
    if linear.quantization is None:
        return linear
    scales = np.array(linear.quantization.weight_scales, dtype=np.float32)
    correction = tuple(means[linear.name].correction(layer.weight, scales).tolist())
    return msgspec.structs.replace(
        linear, quantization=msgspec.structs.replace(linear.quantization, bias_correction=correction)
    )
