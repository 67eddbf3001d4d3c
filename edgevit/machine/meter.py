"""Samples a source of energy beside what is measured, and says how many joules fell into any span of time."""

from __future__ import annotations

import itertools
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from edgevit.machine.power import Channel, PowerSource

if TYPE_CHECKING:
    from typing_extensions import Self

#: A span of which so large a part lies between two samples is not told: the sensor, or this thread, was held up.
_LARGEST_GAP = 0.5


class _Total:
    """The joules of one channel since the first sample: of a counter that starts again, or power by trapezoids."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._joules = 0.0
        self._last: tuple[float, float] | None = None

    def at(self, now_s: float) -> float | None:
        """Take a sample and return the joules so far; None if it cannot be read."""
        value = self._channel.read()
        if value is None:
            return None
        if self._last is not None:
            before_s, before = self._last
            if self._channel.counts:
                self._joules += self._risen(before, value)
            else:
                self._joules += (before + value) / 2 * (now_s - before_s)
        self._last = now_s, value
        return self._joules

    def _risen(self, before: float, now: float) -> float:
        if now >= before:
            return now - before
        wraps_at = self._channel.wraps_at
        return now + (
            wraps_at - before if wraps_at else 0.0
        )  # without a range it was reset: what it has since is known


class Meter:
    """A context manager: between entering and leaving it a thread samples ``source``.

    Times are those of ``clock`` in seconds: the system's monotonic clock, which is the same in all processes.
    """

    def __init__(self, source: PowerSource, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.source = source
        self._clock = clock
        self._totals = [_Total(channel) for channel in source.channels]
        self._times_s: list[float] = []
        self._joules: list[float] = []
        self._lost = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)

    def sample(self) -> None:
        """Take one sample of all channels."""
        now_s = self._clock()
        values = [total.at(now_s) for total in self._totals]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            self._times_s.append(now_s)
            self._joules.append(sum(known))
        else:
            self._lost += 1

    def joules(self, start_s: float, end_s: float) -> float | None:
        """Return the joules between two moments, linear between samples; None where samples do not tell them."""
        times = self._times_s
        if len(times) < 2 or not times[0] <= start_s < end_s <= times[-1]:
            return None
        first, last = bisect_left(times, start_s), bisect_left(times, end_s)
        around = times[max(0, first - 1) : last + 1]
        gap = max((after - before for before, after in itertools.pairwise(around)), default=0.0)
        if gap > max(_LARGEST_GAP * (end_s - start_s), 3 * self.source.interval_s):
            return None
        return _at(times, self._joules, end_s) - _at(times, self._joules, start_s)

    def _run(self) -> None:
        while not self._ended.wait(self.source.interval_s):
            self.sample()

    def __enter__(self) -> Self:
        self.sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.sample()


def _at(times: Sequence[float], values: Sequence[float], moment: float) -> float:
    """Return the value at ``moment``, which lies within ``times``."""
    place = bisect_left(times, moment)
    if place == 0:
        return values[0]
    before, after = times[place - 1], times[place]
    share = (moment - before) / (after - before) if after > before else 1.0
    return values[place - 1] + share * (values[place] - values[place - 1])
