"""Whether the machine was fit to measure on during a run: other load, heat, clocks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from edgevit import system

#: Share of the usable cores' time that other processes, or the hypervisor, may take before a run is invalid.
MAX_OTHER_SHARE = 0.10
#: Share of its clock that the processor may lose between the first and the last third of a run.
MAX_CLOCK_LOSS = 0.15


class Snapshot(NamedTuple):
    """The counters at one moment: seconds of all usable cores together, and events since the machine started."""

    wall_s: float
    busy_s: float
    stolen_s: float
    own_s: float
    throttled: int


class Conditions:
    """Watches the machine until ``invalid_reasons`` are asked for; what the system does not tell does not count.

    ``workers`` are the processes whose load is ours; their time must not count against the run. Take a ``sample`` of
    the clocks right after work, while they still are what they were during it.
    """

    def __init__(self, workers: Iterable[int], *, root: Path = Path("/")) -> None:
        self._root = root
        self._workers = tuple(workers)
        self._cpus = system.usable_cpus()
        self._clocks_khz: list[int] = []
        self._held_down = [system.cooling_steps(root)]
        self._start = self._snapshot()

    def sample(self) -> None:
        """Note the fastest core's clock, and how far the kernel holds the clocks down because of heat."""
        if clocks := system.clocks_khz(self._cpus, self._root):
            self._clocks_khz.append(max(clocks))
        self._held_down.append(system.cooling_steps(self._root))

    def invalid_reasons(self) -> list[str]:
        """Say, in a few words each, what makes the figures since the start doubtful; nothing if all was well."""
        found = other_load(self._start, self._snapshot(), cores=len(self._cpus))
        if max(self._held_down) > self._held_down[0]:
            found.append("the kernel lowered the processor's clock because of heat")
        if loss := clock_loss(self._clocks_khz):
            found.append(f"the processor's clock fell by {100 * loss:.0f} % during the run")
        return found

    def _snapshot(self) -> Snapshot:
        busy, stolen = system.core_seconds(self._cpus, self._root)
        # A worker that has ended counts among this process's children instead.
        own = sum(os.times()[:4]) + sum(system.process_seconds(worker, self._root) for worker in self._workers)
        return Snapshot(time.monotonic(), busy, stolen, own, system.throttle_events(self._cpus, self._root))


def other_load(start: Snapshot, end: Snapshot, *, cores: int) -> list[str]:
    """Say what other processes, the hypervisor and heat took between two moments, where it is too much."""
    found = []
    available = (end.wall_s - start.wall_s) * cores
    others = (end.busy_s - start.busy_s) - (end.own_s - start.own_s)
    stolen = end.stolen_s - start.stolen_s
    if available > 0 and others / available > MAX_OTHER_SHARE:
        found.append(_too_much("other processes took", others / available))
    if available > 0 and stolen / available > MAX_OTHER_SHARE:
        found.append(_too_much("the hypervisor took away", stolen / available))
    if end.throttled > start.throttled:
        found.append(f"the processor throttled itself {end.throttled - start.throttled} times because of heat")
    return found


def _too_much(who: str, share: float) -> str:
    return f"{who} {100 * share:.0f} % of the cores' time, more than {100 * MAX_OTHER_SHARE:.0f} %"


def clock_loss(clocks_khz: list[int]) -> float:
    """Return the share of its clock that the processor lost from the first to the last third, if too much, else 0."""
    third = len(clocks_khz) // 3
    if third == 0:
        return 0.0
    before, after = median(clocks_khz[:third]), median(clocks_khz[-third:])
    loss = 1 - after / before if before > 0 else 0.0
    return loss if loss > MAX_CLOCK_LOSS else 0.0
