"""Affine quantization, in float32 and rounding as ONNX's QuantizeLinear does.

A real number x is stored as q = saturate(round(x / scale) + zero_point), with halves rounded to even, and read back as
(q - zero_point) * scale (ONNX operators QuantizeLinear and DequantizeLinear).
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Integer = TypeVar("Integer", bound="np.uint8 | np.int8")

#: How the inputs of Linear layers are stored: unsigned with a zero point, or signed around 0, which TensorRT asks for.
Scheme = Literal["asymmetric", "symmetric"]

#: Largest magnitude of a symmetric 8-bit weight: -128 is left out, so that w and -w are rounded alike.
WEIGHT_LIMIT = 127

_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # below it, quotients overflow or are flushed to zero


def activation_parameters(minimum: float, maximum: float) -> tuple[np.float32, np.uint8] | None:
    """Return scale and zero point that map [minimum, maximum], widened to hold 0, onto 0..255.

    Zero is then exact, as Jacob et al. 2018 ask, and nothing within the range is clipped. None if the range is empty,
    or too small for a scale in float32.
    """
    low, high = min(minimum, 0.0), max(maximum, 0.0)
    scale = np.float32((high - low) / 255)
    if not scale >= _SMALLEST_SCALE:
        return None
    return scale, np.uint8(np.clip(np.rint(-low / np.float64(scale)), 0, 255))


def symmetric_parameters(minimum: float, maximum: float) -> tuple[np.float32, np.int8] | None:
    """Return the scale that maps the largest magnitude in [minimum, maximum] onto 127, and the zero point 0.

    None if the range is empty, or too small for a scale in float32.
    """
    scale = np.float32(max(abs(minimum), abs(maximum)) / 127)
    return (scale, np.int8(0)) if scale >= _SMALLEST_SCALE else None


def weight_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one scale per column of ``weight`` (K, N) that maps its largest magnitude onto 127.

    A column of zeros, or too small for a scale in float32, gets 1, and is stored as zeros.
    """
    scales = (np.abs(weight).max(axis=0) / np.float32(WEIGHT_LIMIT)).astype(np.float32)
    return np.where(scales < _SMALLEST_SCALE, np.float32(1), scales)


def quantize_array(
    values: NDArray[np.float32], scale: NDArray[np.float32] | np.float32, zero_point: Integer
) -> NDArray[Integer]:
    """Return ``values`` in the integer type of ``zero_point``; ``scale`` is one, or one per entry of the last axis."""
    limits = np.iinfo(zero_point.dtype)
    rounded = np.rint(values / scale) + np.float32(zero_point)
    stored: NDArray[Integer] = np.clip(rounded, limits.min, limits.max).astype(zero_point.dtype)
    return stored


def fake_quantize(
    values: NDArray[np.float32], scale: np.float32, zero_point: Integer, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return what ``values`` are after ``quantize_array`` and ``dequantize``, in ``out`` if given."""
    limits = np.iinfo(zero_point.dtype)
    low, high = np.float32(limits.min) - np.float32(zero_point), np.float32(limits.max) - np.float32(zero_point)
    real = np.divide(values, scale, out=out)
    np.rint(real, out=real)
    np.clip(real, low, high, out=real)
    real *= scale
    return real


def dequantize(
    values: NDArray[Integer], scale: NDArray[np.float32] | np.float32, zero_point: Integer
) -> NDArray[np.float32]:
    """Return the real numbers that ``values`` stand for."""
    real: NDArray[np.float32] = (values.astype(np.float32) - np.float32(zero_point)) * scale
    return real
