"""When a warm-up is over: the times of inferences no longer rise or fall.

Times right after the start fall as caches fill and clocks rise, or rise as clocks fall. The test is that of Mann 1945
and Kendall 1975 for a trend, on the latest values: no assumption of how times are distributed, and one that is far off
counts no more than any other. A value is the median of as many inferences as take 5 ms, so that what is tested is at
least 60 ms long, in which governors of clocks act.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, median
from typing import NamedTuple

METHOD = "no Mann-Kendall trend (p >= 0.05) in the last 12 medians of 5 ms"
#: Values that are tested, and those that are added before they are tested again.
_WINDOW, _STEP = 12, 4
_MOST_INFERENCES = 50_000
_VALUE_NS = 5_000_000
_LEVEL = 0.05


class WarmedUp(NamedTuple):
    """The times of all inferences of a warm-up, in nanoseconds, and whether they got steady."""

    inference_ns: list[int]
    steady: bool


def warm_up(infer_ns: Callable[[int], list[int]], *, least: int, limit_s: float) -> WarmedUp:
    """Run inferences until their times are steady: at least ``least``, at most 50,000 and for ``limit_s`` seconds.

    ``infer_ns`` runs so many of them and returns the nanoseconds of each.
    """
    times = infer_ns(least)
    spent = sum(times)
    values: list[float] = [median(times)]
    while len(times) < _MOST_INFERENCES and spent < limit_s * 1e9:
        more = infer_ns(max(1, round(_VALUE_NS / max(1.0, values[-1]))))
        times += more
        spent += sum(more)
        values.append(median(more))
        tested = len(values) - 1 - _WINDOW
        if tested >= 0 and tested % _STEP == 0 and trend_p(values[-_WINDOW:]) >= _LEVEL:
            return WarmedUp(times, steady=True)
    return WarmedUp(times, steady=False)


def trend_p(values: Sequence[float]) -> float:
    """Return the two-sided p-value of the Mann-Kendall test for a trend, with its correction for equal values.

    The normal approximation is used, which is fit for ten values or more. Values without a difference have no trend: 1.
    """
    count = len(values)
    score = sum(
        (later > earlier) - (later < earlier) for place, earlier in enumerate(values) for later in values[place + 1 :]
    )
    ties = [values.count(value) for value in set(values)]
    variance = (count * (count - 1) * (2 * count + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    if not variance or not score:
        return 1.0
    z = (abs(score) - 1) / math.sqrt(variance)
    return 2 * (1 - NormalDist().cdf(z))
