"""How calibration images look to the model: to notice those that are unlike what it was trained on."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

_GREY = 0.01  # deviations that a pixel's channels may differ by in an image without colour: JPEG's rounding


class PixelStatistics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Preprocessed images: how many, and how many of them are ``flat``, without colour (``grey``), or the first again.

    ``mean`` and ``deviation`` are those of all values. With one channel no image counts as grey.
    """

    images: float
    flat: float
    grey: float
    repeated: float
    mean: float
    deviation: float


class PixelObserver:
    """Looks at preprocessed images as they pass."""

    def __init__(self) -> None:
        self._images = self._flat = self._grey = self._repeated = 0
        self._sum = self._squares = 0.0
        self._first = 0.0, 0.0

    def update(self, image: NDArray[np.float32]) -> None:
        """Take in one image (1, C, H, W)."""
        planes = image.reshape(image.shape[1], -1) if image.ndim > 1 else image[None]
        total, squares = float(planes.sum(dtype=np.float64)), float(np.einsum("cp,cp->", planes, planes))
        mean, deviation = planes.mean(axis=1, keepdims=True), planes.std(axis=1, keepdims=True)
        flat = bool((np.ptp(planes, axis=1) == 0).all())
        if not self._images:
            self._first = (total, squares)
        self._repeated += bool(self._images) and self._first == (total, squares)
        self._flat += flat
        if len(planes) > 1 and not flat:
            scaled = (planes - mean) / np.maximum(deviation, np.finfo(np.float32).tiny)
            self._grey += bool(np.abs(scaled[1:] - scaled[0]).mean() < _GREY)
        self._images += 1
        self._sum += total / planes.size
        self._squares += squares / planes.size

    def statistics(self) -> PixelStatistics:
        """Return what was seen; there must have been something."""
        mean = self._sum / self._images
        deviation = math.sqrt(max(self._squares / self._images - mean**2, 0.0))
        return PixelStatistics(self._images, self._flat, self._grey, self._repeated, mean, deviation)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all there is to know, for ``restore``."""
        counts = (self._images, self._flat, self._grey, self._repeated)
        return {"counts": np.array(counts), "sums": np.array([self._sum, self._squares, *self._first])}

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Go on from ``state``."""
        self._images, self._flat, self._grey, self._repeated = (int(value) for value in state["counts"])
        self._sum, self._squares, *first = (float(value) for value in state["sums"])
        self._first = first[0], first[1]
