"""How often values occurred: a histogram whose range may grow while values stream by, with exact counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevit.quantization.calibration.arrays import same_layout

#: At most so many bins; where values spread at all, more than half of them are in use.
BINS = 2048

_FINEST = -126  # exponent of the narrowest bins: 2**126 is the largest power of two that float32 can multiply by
_FARTHEST = 1 << 23  # from 0, in bins: float32 still tells each from its neighbours


@dataclass(frozen=True, eq=False, slots=True)
class Histogram:
    """``counts`` (B,) of values in bins of one ``width``, the first of which begins at ``low``."""

    low: float
    width: float
    counts: NDArray[np.int64]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        same = (self.low, self.width) == (other.low, other.width)
        return same and np.array_equal(self.counts, other.counts)

    def edges(self) -> NDArray[np.float64]:
        """Return where bins begin, and where the last one ends (B + 1,)."""
        return np.float64(self.low) + np.float64(self.width) * np.arange(len(self.counts) + 1, dtype=np.float64)

    def centres(self) -> NDArray[np.float64]:
        """Return the middle of each bin (B,)."""
        return self.edges()[:-1] + self.width / 2

    def shifted(self, by: float) -> Histogram:
        """Return the histogram of the same values less ``by``."""
        return Histogram(self.low - by, self.width, self.counts)

    def magnitudes(self) -> Histogram:
        """Return the histogram of the absolute values, exact to half a bin where no bin begins at 0."""
        bins = np.floor(np.abs(self.centres()) / self.width).astype(np.int64)
        counts = np.zeros(int(bins.max()) + 1, dtype=np.int64)
        np.add.at(counts, bins, self.counts)
        return Histogram(0.0, self.width, counts)


class StreamingHistogram:
    """Counts values in at most ``BINS`` bins of width 2**exponent, each beginning at a multiple of that.

    When a value falls outside, the width doubles, so that two bins become one, as often as it takes. The smallest and
    the largest value alone decide on the bins: it makes no difference in which order, or in how many parts, values
    came. Scaling by a power of two is exact in float32, and so are the counts.
    """

    def __init__(self) -> None:
        self._exponent: int | None = None
        self._start = 0  # the first bin begins at _start * 2**_exponent
        self._counts = np.zeros(BINS, dtype=np.int64)
        self._minimum, self._maximum = math.inf, -math.inf

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in ``values`` of any shape; there must be some, and all of them finite."""
        exponent = self._hold(float(values.min()), float(values.max()))
        bins = values * np.float32(2.0**-exponent)
        np.floor(bins, out=bins)
        bins -= np.float32(self._start)
        self._counts += np.bincount(bins.astype(np.int64).ravel(), minlength=BINS)

    def histogram(self) -> Histogram:
        """Return what was seen, from the first bin with a value to the last; there must have been something."""
        assert self._exponent is not None  # noqa: S101 - observe() needs an image
        width = 2.0**self._exponent
        used = np.flatnonzero(self._counts)
        first, last = int(used[0]), int(used[-1])
        return Histogram((self._start + first) * width, width, self._counts[first : last + 1].copy())

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all there is to know, for ``restore``."""
        assert self._exponent is not None  # noqa: S101 - there is no state before the first image
        return {
            "bins": np.array([self._exponent, self._start]),
            "limits": np.array([self._minimum, self._maximum]),
            "counts": self._counts,
        }

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Go on from ``state``.

        Raises:
            ValueError: if it is none.

        """
        self._exponent, self._start = (int(value) for value in state["bins"])
        self._minimum, self._maximum = (float(value) for value in state["limits"])
        self._counts = same_layout(state["counts"], self._counts)
        if _bins_for(self._minimum, self._maximum) != (self._exponent, self._start) or self._counts.min() < 0:
            raise ValueError("the bins are not those of the limits")

    def _hold(self, low: float, high: float) -> int:
        """Make the bins hold ``low`` and ``high`` as well, and return their exponent."""
        self._minimum, self._maximum = min(self._minimum, low), max(self._maximum, high)
        exponent, start = _bins_for(self._minimum, self._maximum)
        if self._exponent is not None and (exponent, start) != (self._exponent, self._start):
            bins = ((self._start + np.arange(BINS)) >> (exponent - self._exponent)) - start
            used = self._counts > 0
            counts = np.zeros_like(self._counts)
            np.add.at(counts, bins[used], self._counts[used])
            self._counts = counts
        self._exponent, self._start = exponent, start
        return exponent


def _bins_for(low: float, high: float) -> tuple[int, int]:
    """Return the exponent of the narrowest bins that reach from ``low`` to ``high``, and the number of the first."""
    span = max((high - low) / BINS, max(abs(low), abs(high)) / _FARTHEST)
    exponent = max(_FINEST, math.frexp(span)[1] - 1) if span else _FINEST
    while True:
        first, last = (math.floor(math.ldexp(value, -exponent)) for value in (low, high))
        if last - first < BINS and max(abs(first), abs(last)) < _FARTHEST:
            return exponent, first
        exponent += 1
