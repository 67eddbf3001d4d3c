"""FP8 (E4M3): 8-bit floats for GPUs from compute capability 8.9 on.

A value x is stored as the nearest float8 to x / scale, where the scale maps the largest magnitude that calibration saw
onto 448, the largest float8. A float8 has 3 bits of mantissa whatever its size: unlike INT8's, its step grows with the
value, so that outliers do not cost the others their precision.
"""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.linears import find_linears
from edgevit.graph.saving import tidy
from edgevit.quantization.arithmetic import WEIGHT_LIMIT
from edgevit.quantization.emit.rewrite import QuantizedLinear, rounded_scales
from edgevit.quantization.plan import LinearPlan, QuantizationPlan
from edgevit.quantization.rewrites.activation_shift import unshift_input

LIMIT = 448
#: Of a scale for INT8, how much is the one for FP8.
SHARE = WEIGHT_LIMIT / LIMIT
ZERO: np.generic = ml_dtypes.float8_e4m3fn(0)


def quantize_float8(values: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.generic]:
    """Return ``values`` / ``scale`` as float8, halves rounded to even; ``scale`` is one, or one per column."""
    stored: NDArray[np.generic] = np.clip(values / scale, -LIMIT, LIMIT).astype(ml_dtypes.float8_e4m3fn)
    return stored


def as_float8(linear: QuantizedLinear) -> QuantizedLinear:
    """Return ``linear``, which stores its input signed and symmetric, in FP8 with float16 scales.

    The bias stays: what corrects it is for the mean error of INT8, of which the weights keep theirs.
    """
    scales = rounded_scales(linear.weight_scales * np.float32(SHARE), np.float16)
    return replace(
        linear,
        scale=rounded_scales(linear.scale * np.float32(SHARE), np.float16),
        zero_point=np.asarray(ZERO),
        weight=quantize_float8(linear.layer.weight, scales),
        weight_scales=scales,
    )


def without_shifts(model: ir.Model, plan: QuantizationPlan) -> QuantizationPlan:
    """Undo in ``model`` the shifts of inputs that INT8 has; return its ``plan`` for that."""
    shifts = {layer.name: unshift_input(model.graph, layer) for layer in find_linears(model.graph)}
    tidy(model)
    linears = tuple(_shifted(linear, shifts[linear.name]) for linear in plan.linears)
    return msgspec.structs.replace(plan, linears=linears)


def _shifted(linear: LinearPlan, shift: float) -> LinearPlan:
    """Return ``linear`` with a scale for its input and ``shift``: what was within ±a before is within ±(a + shift)."""
    if linear.quantization is None:
        return linear
    scale = linear.quantization.activation_scale + abs(shift) / WEIGHT_LIMIT
    return msgspec.structs.replace(
        linear, quantization=msgspec.structs.replace(linear.quantization, activation_scale=scale)
    )
