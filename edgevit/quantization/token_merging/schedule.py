"""Choose how many tokens each block merges: the least loss for the time that is saved.

What merging costs is taken as a sum over blocks, as errors of different blocks are nearly independent; what it saves is
a sum, too. So for a given price of time the best schedule is a shortest way through the blocks, which dynamic
programming finds; the price is raised until the schedule keeps the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_BISECTIONS = 40
_CHEAPEST, _DEAREST = 1e-9, 1e6  # prices of all of the time, in units of the loss


@dataclass(frozen=True, slots=True)
class MergingCosts:
    """What merging costs and saves, at levels of so many tokens merged so far, ``counts``, the first 0.

    ``loss`` (blocks, levels, levels) is what it costs to go from one level to another at a block, infinity where it
    cannot; ``time`` and ``work`` (blocks, levels) are what lies behind the merging of a block and before that of the
    next, in shares of the whole model's, as latency and as multiply-adds. ``merge_time`` is what each merging takes
    itself.
    """

    counts: NDArray[np.int64]
    loss: NDArray[np.float64]
    time: NDArray[np.float64]
    work: NDArray[np.float64]
    merge_time: float

    def levels_of(self, schedule: Sequence[int]) -> NDArray[np.int64]:
        """Return the level that each block of ``schedule`` leads to."""
        return np.searchsorted(self.counts, np.cumsum(schedule))

    def schedule_of(self, levels: Sequence[int] | NDArray[np.int64]) -> tuple[int, ...]:
        """Return how many tokens each block merges to get to ``levels``."""
        return tuple(np.diff(self.counts[np.asarray(levels)], prepend=0).tolist())

    def work_left(self, schedule: tuple[int, ...]) -> float:
        """Return the share of the multiply-adds that is left with ``schedule``, without those of merging itself."""
        return 1 - self._saved(self.work, schedule)

    def time_left(self, schedule: tuple[int, ...]) -> float:
        """Return the share of the time that is left with ``schedule``."""
        return 1 - self._saved(self.time, schedule) + self.merge_time * sum(count > 0 for count in schedule)

    def loss_of(self, schedule: tuple[int, ...]) -> float:
        """Return what ``schedule`` is expected to cost."""
        levels = (0, *self.levels_of(schedule))
        return float(sum(table[pair] for table, pair in zip(self.loss, pairwise(levels), strict=True)))

    def _saved(self, table: NDArray[np.float64], schedule: tuple[int, ...]) -> float:
        levels = self.levels_of(schedule)
        return float(sum(row[0] - row[level] for row, level in zip(table, levels, strict=True)))


def find_schedule(costs: MergingCosts, budget: float) -> tuple[int, ...] | None:
    """Return the schedule of the least loss for the time it saves that leaves at most ``budget`` of the multiply-adds.

    None where none leaves so little.
    """
    low, high = np.log(_CHEAPEST), np.log(_DEAREST)
    if costs.work_left(cheapest(costs, _DEAREST)) > budget:
        return None
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if costs.work_left(cheapest(costs, float(np.exp(middle)))) > budget:
            low = middle
        else:
            high = middle
    return _relaxed(costs, cheapest(costs, float(np.exp(high))), budget)


def cheapest(costs: MergingCosts, price: float) -> tuple[int, ...]:
    """Return the schedule with the least loss and time, where all of the model's time costs ``price``."""
    blocks, levels = costs.time.shape
    best = np.full(levels, np.inf)
    best[0] = 0.0
    came_from = np.zeros((blocks, levels), dtype=np.int64)
    merges = price * costs.merge_time * (1 - np.eye(levels))
    for block in range(blocks):
        total = best[:, None] + costs.loss[block] + merges
        came_from[block] = total.argmin(axis=0)
        best = total.min(axis=0) + price * costs.time[block]
    level = int(best.argmin())
    path = []
    for block in reversed(range(blocks)):
        path.append(level)
        level = int(came_from[block, level])
    return costs.schedule_of(path[::-1])


def _relaxed(costs: MergingCosts, schedule: tuple[int, ...], budget: float) -> tuple[int, ...]:
    """Return ``schedule`` with fewer tokens merged where that keeps ``budget`` still and costs less."""
    while True:
        levels = costs.levels_of(schedule)
        fewer = [costs.schedule_of(levels - (np.arange(len(levels)) >= block)) for block in np.flatnonzero(schedule)]
        kept = [each for each in fewer if costs.work_left(each) <= budget]
        best = min(kept, key=costs.loss_of, default=schedule)
        if costs.loss_of(best) >= costs.loss_of(schedule):
            return schedule
        schedule = best
