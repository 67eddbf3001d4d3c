"""What is kept of the activations that pass by; an observer's memory does not grow with what it has seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevit.quantization.table import TensorStatistics


class MinMax:
    """The smallest and the largest value seen.

    For ViT activations no clipping beats clipping: their few outliers carry meaning.
    """

    def __init__(self) -> None:
        self._minimum = np.inf
        self._maximum = -np.inf

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in ``values`` of any shape; one that is not a number, or infinite, stays in the result."""
        # np.minimum, unlike min(), keeps a NaN whichever side it is on.
        self._minimum = float(np.minimum(self._minimum, values.min()))
        self._maximum = float(np.maximum(self._maximum, values.max()))

    def finite(self) -> bool:
        """Say whether all values so far were finite."""
        return bool(np.isfinite(self._minimum) and np.isfinite(self._maximum))

    def statistics(self) -> TensorStatistics:
        """Return what was seen; there must have been something, and all of it finite."""
        return TensorStatistics(minimum=self._minimum, maximum=self._maximum)
