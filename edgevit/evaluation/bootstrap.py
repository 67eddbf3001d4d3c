"""Confidence limits of a figure that is computed from sums over images, such as a mean, an mIoU or an F1."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Sums = NDArray[np.float64]
#: From sums (R, K) over images to the figure (R,).
Figure = Callable[[Sums], Sums]


class ImageFigure(NamedTuple):
    """What each image adds (N, K) to the sums that a figure is computed from, and how it is."""

    parts: Sums
    figure: Figure

    @property
    def value(self) -> float:
        """The figure of all images."""
        return float(self.figure(self.parts.sum(axis=0, keepdims=True))[0])


#: Draws of as many images as there are.
RESAMPLES = 2000
#: Images that are drawn at once: a call of NumPy's takes longer than to draw a hundred.
_AT_ONCE = 1 << 16
_NORMAL = NormalDist()


def bca_interval(
    found: ImageFigure, *, confidence: float = 0.90, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap interval of a figure, with images as the units.

    All that one image gives is drawn together, for its tokens, pixels or boxes are not independent. The acceleration is
    the jackknife's. Efron 1987, "Better bootstrap confidence intervals". Percentiles alone are too short for what is
    skewed, as cosines near 1 are.

    Raises:
        ValueError: if there are no images.

    """
    parts, figure = found
    if not len(parts):
        raise ValueError("there is no interval of no images")
    value = found.value
    drawn = np.sort(_drawn(parts, figure, resamples, seed))
    if drawn[0] == drawn[-1]:
        return value, value
    below = (np.sum(drawn < value) + 0.5 * np.sum(drawn == value)) / resamples
    bias = _NORMAL.inv_cdf(min(1 - 1 / resamples, max(1 / resamples, float(below))))
    without = figure(parts.sum(axis=0) - parts) if len(parts) > 1 else drawn[:1]
    off = without.mean() - without
    spread = float(np.square(off).sum())
    acceleration = float((off**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    tail = (1 - confidence) / 2
    low, high = (_quantile(drawn, level, bias, acceleration) for level in (tail, 1 - tail))
    return low, high


def _drawn(parts: Sums, figure: Figure, resamples: int, seed: int) -> Sums:
    rng = np.random.default_rng(seed)
    count = len(parts)
    sums = np.empty((resamples, parts.shape[1]))
    most = max(1, _AT_ONCE // count)
    for start in range(0, resamples, most):
        rows = sums[start : start + most]
        drawn = rng.integers(count, size=(len(rows), count))
        drawn += np.arange(0, drawn.size, count)[:, None]  # each draw has numbers of its own
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        rows[:] = times @ parts
    return figure(sums)


def _quantile(drawn: Sums, level: float, bias: float, acceleration: float) -> float:
    shifted = bias + _NORMAL.inv_cdf(level)
    stretch = 1 - acceleration * shifted
    # Past that point the correction has no meaning; the end of what was drawn is the answer then.
    moved = bias + shifted / stretch if stretch > 0 else math.copysign(math.inf, shifted)
    return float(np.quantile(drawn, _NORMAL.cdf(moved)))
