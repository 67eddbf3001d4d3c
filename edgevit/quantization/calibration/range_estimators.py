"""Read a range off what a tensor was seen to take; what lies outside of it is clipped.

By name, as recipes choose them:

- ``minmax``: all that was seen.
- ``average-minmax``: the mean of the ranges of groups of images.
- ``moving-average``: their exponential mean, image by image (Jacob et al. 2018, section 3.1).
- ``percentile``: nearly all that was seen, as much left out at either end (McKinstry et al. 2019).
- ``entropy``: the range whose levels tell most about the values (Migacz, "8-bit Inference with TensorRT", GTC 2017).
- ``mse``: the range with the smallest mean squared error of rounding and clipping together (Banner et al. 2019).

The first three are kept while values stream by (``observers``), the others are worked out here on the histogram.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.calibration.histogram import Histogram

Range = tuple[float, float]

_LEVELS = 255  # that a range is divided into
_STEPS = 64  # ranges that ``mse`` tries at either end
_SMALLEST_SHARE = 0.1  # of the whole range, that it tries
_NOTHING = 1e-4  # values that an empty bin is taken to hold, so that a divergence is finite


def percentile(histogram: Histogram, percent: float, scheme: Scheme) -> Range:
    """Return the range that holds ``percent`` per cent of the values, to a bin; symmetric, of their magnitudes."""
    if scheme == "symmetric":
        limit = _quantile(histogram.magnitudes(), percent / 100)
        return -limit, limit
    cut = (1 - percent / 100) / 2
    return _quantile(histogram, cut) - histogram.width, _quantile(histogram, 1 - cut)


def _quantile(histogram: Histogram, share: float) -> float:
    """Return the end of the first bin up to which there is that ``share`` of all values."""
    reached = np.cumsum(histogram.counts) / histogram.counts.sum()
    index = min(int(np.searchsorted(reached, share)), len(reached) - 1)
    return float(histogram.edges()[index + 1])


def entropy(histogram: Histogram) -> Range:
    """Return the range around 0 whose values, divided into 255 levels, differ least from those clipped to it.

    Of ranges from 255 bins to all, that with the smallest KL divergence of the distribution of the clipped values from
    that of the levels; bins where there was nothing get nothing back. Ranges with less than 255 bins are exact, and
    then the whole range is returned.
    """
    counts = _around_zero(histogram)
    half = len(counts) // 2
    reaches = range(_LEVELS // 2, half + 1)
    divergences = [_divergence(counts, reach) for reach in reaches]
    limit = (reaches[int(np.argmin(divergences))] if divergences else half) * histogram.width
    return -limit, limit


def _around_zero(histogram: Histogram) -> NDArray[np.int64]:
    """Return counts of as many bins below 0 as above it."""
    first = round(histogram.low / histogram.width)
    half = max(-first, first + len(histogram.counts), 1)
    counts = np.zeros(2 * half, dtype=np.int64)
    counts[half + first : half + first + len(histogram.counts)] = histogram.counts
    return counts


def _divergence(counts: NDArray[np.int64], reach: int) -> float:
    """Return KL(clipped || levels) in nats for a range of ``reach`` bins on either side of the middle."""
    middle = len(counts) // 2
    inside = counts[middle - reach : middle + reach]
    clipped = inside.astype(np.float64)
    clipped[0] += counts[: middle - reach].sum()
    clipped[-1] += counts[middle + reach :].sum()
    used = clipped > 0
    group = np.minimum(np.arange(len(inside)) // max(len(inside) // _LEVELS, 1), _LEVELS - 1)
    totals = np.bincount(group, inside, minlength=_LEVELS)
    share = np.bincount(group, used, minlength=_LEVELS)
    levels = np.where(used, (totals / np.maximum(share, 1))[group], 0.0)
    if not levels.any():
        return np.inf
    p, q = (np.where(part > 0, part, _NOTHING) for part in (clipped, levels))
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def mean_squared_error(histogram: Histogram, scheme: Scheme) -> Range:
    """Return the range whose 8-bit values have the smallest mean squared error, of those tried.

    Values are taken to lie in the middle of their bins. Each end is tried at 64 places between a tenth of the whole
    range and all of it: both ends together, asymmetric, or one for both.
    """
    shares = np.linspace(_SMALLEST_SHARE, 1, _STEPS)
    if scheme == "symmetric":
        magnitudes = histogram.magnitudes()
        highs = magnitudes.edges()[-1] * shares
        limit = float(highs[int(np.argmin(_errors(magnitudes, np.zeros(1), highs, 127)[0]))])
        return -limit, limit
    lows = shares * min(histogram.low, 0.0)
    highs = shares * max(float(histogram.edges()[-1]), 0.0)
    errors = _errors(histogram, np.unique(lows), np.unique(highs), _LEVELS)
    low, high = np.unravel_index(int(np.argmin(errors)), errors.shape)
    return float(np.unique(lows)[low]), float(np.unique(highs)[high])


def _errors(
    histogram: Histogram, lows: NDArray[np.float64], highs: NDArray[np.float64], levels: int
) -> NDArray[np.float64]:
    """Return the squared errors, added up, (L, H) of all ranges from one of ``lows`` (L,) to one of ``highs`` (H,)."""
    used = histogram.counts > 0
    values, counts = histogram.centres()[used], histogram.counts[used].astype(np.float64)
    errors = np.empty((len(lows), len(highs)))
    for row, low in enumerate(lows):
        scale = np.maximum((highs - low) / levels, np.finfo(np.float64).tiny)[:, None]
        zero = np.rint(-low / scale)
        stored = np.clip(np.rint(values / scale), -zero, levels - zero) * scale
        errors[row] = ((stored - values) ** 2) @ counts
    return errors
