"""What is kept of the activations that pass by; an observer's memory does not grow with what it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.quantization.calibration.arrays import same_layout
from edgevit.quantization.calibration.calibration_table import ChannelStatistics, TensorStatistics
from edgevit.quantization.calibration.histogram import StreamingHistogram

#: Images whose ranges are joined before they are averaged: an image alone clips more than a group does.
#: benchmarks/results/ablations.md has what other groups give.
GROUP = 8

#: Weight of an image in the moving average, as in PyTorch's MovingAverageMinMaxObserver and onnxruntime's MinMax.
NEW = 0.01

#: What an observer has to go on from, by name.
ObserverState = dict[str, NDArray[np.generic]]


class Resumable(Protocol):
    """One of the things that are kept, which a pass that was interrupted goes on from."""

    def state(self) -> ObserverState:
        """Return all there is to know."""
        ...

    def restore(self, state: ObserverState) -> None:
        """Go on from what ``state`` returned."""
        ...


class MinMax:
    """The smallest and the largest value seen."""

    def __init__(self) -> None:
        self.minimum = np.inf
        self.maximum = -np.inf

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in ``values`` of any shape; one that is not a number, or infinite, stays in the result."""
        # np.minimum, unlike min(), keeps a NaN whichever side it is on.
        self.minimum = float(np.minimum(self.minimum, values.min()))
        self.maximum = float(np.maximum(self.maximum, values.max()))

    def join(self, other: MinMax) -> None:
        """Take in all that ``other`` has seen."""
        self.minimum = float(np.minimum(self.minimum, other.minimum))
        self.maximum = float(np.maximum(self.maximum, other.maximum))


class RangeObserver:
    """The range of all values, the average range of a group of images, and the moving average of those of images.

    The whole range grows with every outlier, and costs all other values precision; an average clips outliers. Averaging
    the ranges of batches is Jacob et al.'s 2018 way to calibrate; a plain mean, unlike their exponential one, depends
    little on the order of the images.
    """

    def __init__(self) -> None:
        self._all = MinMax()
        self._group = MinMax()
        self._images = 0
        self._minima = 0.0
        self._maxima = 0.0
        self._moving = (0.0, 0.0)

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in the values of one image, of any shape."""
        image = MinMax()
        image.update(values)
        self._all.join(image)
        self._group.join(image)
        if not self._images:
            self._moving = (image.minimum, image.maximum)
        low, high = self._moving
        self._moving = (low + NEW * (image.minimum - low), high + NEW * (image.maximum - high))
        self._images += 1
        if self._images % GROUP == 0:
            self._minima += self._group.minimum
            self._maxima += self._group.maximum
            self._group = MinMax()

    def statistics(self) -> TensorStatistics:
        """Return what was seen; there must have been something, and all of it finite.

        Images that fill no group count to the whole range only, unless there are no others.
        """
        groups = self._images // GROUP
        low, high = self._all.minimum, self._all.maximum
        average = (self._minima / groups, self._maxima / groups) if groups else (low, high)
        moving = (max(low, self._moving[0]), min(high, self._moving[1]))  # they differ by rounding, if at all
        return TensorStatistics(
            minimum=low,
            maximum=high,
            average_minimum=average[0],
            average_maximum=average[1],
            moving_minimum=moving[0],
            moving_maximum=moving[1],
        )

    def state(self) -> ObserverState:
        """Return all there is to know, for ``restore``."""
        ranges = (self._all.minimum, self._all.maximum, self._group.minimum, self._group.maximum)
        return {"range": np.array([*ranges, self._minima, self._maxima, *self._moving, self._images])}

    def restore(self, state: ObserverState) -> None:
        """Go on from ``state``."""
        values = [float(value) for value in state["range"]]
        self._all.minimum, self._all.maximum, self._group.minimum, self._group.maximum = values[:4]
        self._minima, self._maxima = values[4:6]
        self._moving = (values[6], values[7])
        self._images = int(values[8])


class ChannelObserver:
    """The range, the mean and the variance of each of K channels."""

    def __init__(self, width: int) -> None:
        self._minimum = np.full(width, np.inf, dtype=np.float32)
        self._maximum = np.full(width, -np.inf, dtype=np.float32)
        self._sum = np.zeros(width)
        self._squares = np.zeros(width)
        self.rows = 0

    def update(self, rows: NDArray[np.float32]) -> None:
        """Take in ``rows`` (N, K)."""
        np.minimum(self._minimum, rows.min(axis=0), out=self._minimum)
        np.maximum(self._maximum, rows.max(axis=0), out=self._maximum)
        wide = rows.astype(np.float64)
        self._sum += wide.sum(axis=0)
        self._squares += np.square(wide, out=wide).sum(axis=0)
        self.rows += len(rows)

    def statistics(self) -> ChannelStatistics:
        """Return what was seen; there must have been something."""
        mean = self._sum / self.rows
        variance = np.maximum(self._squares / self.rows - mean**2, 0.0)
        return ChannelStatistics(self._minimum.astype(np.float64), self._maximum.astype(np.float64), variance, mean)

    def state(self) -> ObserverState:
        """Return all there is to know, for ``restore``."""
        limits = np.stack([self._minimum, self._maximum])
        return {"limits": limits, "moments": np.stack([self._sum, self._squares]), "seen": np.array([self.rows])}

    def restore(self, state: ObserverState) -> None:
        """Go on from ``state``."""
        self._minimum, self._maximum = same_layout(state["limits"], np.stack([self._minimum, self._maximum]))
        self._sum, self._squares = same_layout(state["moments"], np.stack([self._sum, self._squares]))
        self.rows = int(state["seen"][0])


class InputObserver:
    """All that is kept of one layer's input: of all values together, and of each of its K channels."""

    def __init__(self, width: int) -> None:
        self._range = RangeObserver()
        self._histogram = StreamingHistogram()
        self._channels = ChannelObserver(width)

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in the values (..., K) of one image."""
        rows = values.reshape(-1, values.shape[-1])
        self._range.update(rows)
        self._histogram.update(rows)
        self._channels.update(rows)

    def statistics(self) -> TensorStatistics:
        """Return what was seen; there must have been something, and all of it finite."""
        return msgspec.structs.replace(
            self._range.statistics(),
            histogram=self._histogram.histogram(),
            channels=self._channels.statistics(),
            tokens=self._channels.rows,
        )

    def state(self) -> ObserverState:
        """Return all there is to know, for ``restore``; there must have been something."""
        return joined_states(self._parts())

    def restore(self, state: ObserverState) -> None:
        """Go on from ``state``."""
        restore(self._parts(), state)

    def _parts(self) -> dict[str, Resumable]:
        return {
            "range": self._range,
            "histogram": self._histogram,
            "channels": self._channels,
        }


def joined_states(parts: Mapping[str, Resumable]) -> ObserverState:
    """Return the states of all ``parts`` as one."""
    return {f"{name}.{field}": array for name, part in parts.items() for field, array in part.state().items()}


def restore(parts: Mapping[str, Resumable], state: ObserverState) -> None:
    """Let all ``parts`` go on from what ``joined_states`` returned."""
    split: dict[str, ObserverState] = {name: {} for name in parts}
    for key, array in state.items():
        name, _, field = key.partition(".")
        split[name][field] = array
    for name, part in parts.items():
        part.restore(split[name])
