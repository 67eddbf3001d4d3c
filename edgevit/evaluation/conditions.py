"""Whether the machine was fit to measure on: other load, heat, clocks, settings; and what it did meanwhile.

Each round of blocks is judged by itself, so that a disturbed one can be measured again; the run is judged once more as
a whole, by the rounds that count.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from edgevit import system
from edgevit.bundle.measured import GpuState, MachineState
from edgevit.machine.gpus import Gpus
from edgevit.machine.nvml import GpuReading
from edgevit.machine.state import State, state
from edgevit.machine.throttling import Throttling, happened, throttling

#: Share of the usable cores' time that other processes, or the hypervisor, may take before a run is invalid.
MAX_OTHER_SHARE = 0.10
#: Share of its clock that the processor may lose between the first and the last third of a run.
MAX_CLOCK_LOSS = 0.15
#: The kernel counts in ticks: a round is judged only beyond so many of each core.
_SLACK_TICKS = 2
#: Seconds between looks at clocks and sensors while blocks run.
_LOOK_S = 0.5
_MOST_REASONS, _LONGEST, _MOST_CORES = 16, 1024, 1024


class Counters(NamedTuple):
    """The counters at one moment: seconds of all usable cores together."""

    wall_s: float
    busy_s: float
    stolen_s: float
    own_s: float


class Shares(NamedTuple):
    """What of ``available_s`` seconds of the cores others took, and the hypervisor."""

    available_s: float
    others_s: float
    stolen_s: float


class Look(NamedTuple):
    """What was seen at one moment."""

    state: State
    throttling: Throttling
    gpus: tuple[GpuReading, ...]


class Watched(NamedTuple):
    """One round: what was seen in it, what others took, and in a few words each what disturbed it."""

    looks: tuple[Look, ...]
    shares: Shares
    reasons: tuple[str, ...]


class Conditions:
    """Watches the machine round after round; what the system does not tell does not count.

    ``workers`` are the processes whose load is ours; their time must not count against the run. ``gpus`` are looked at
    where something runs on them.
    """

    def __init__(self, workers: Iterable[int], *, root: Path = Path("/"), gpus: Gpus | None = None) -> None:
        self._root, self._gpus = root, gpus
        self._workers = tuple(workers)
        self._cpus = system.usable_cpus()
        self._looks: list[Look] = []
        self.look()
        self._first = self._looks[0]
        self._before = self.now()

    def look(self) -> None:
        """Note what can be seen now; right after work, clocks still are what they were during it."""
        gpus = () if self._gpus is None else tuple(self._gpus.readings())
        seen = Look(state(self._cpus, self._root), throttling(self._cpus, self._root), gpus)
        self._looks.append(seen)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look twice a second, too, so that what happens within a long block is seen."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(_LOOK_S):
                self.look()

        thread = threading.Thread(target=run, name="conditions", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def begin(self) -> None:
        """Begin a round, and forget what was before."""
        self._looks = self._looks[-1:]
        self._before = self.now()

    def end(self) -> Watched:
        """Return what was seen since ``begin``."""
        self.look()
        looks, after = tuple(self._looks), self.now()
        shares = shares_between(self._before, after, cores=len(self._cpus))
        slack_s = _SLACK_TICKS * len(self._cpus) / os.sysconf("SC_CLK_TCK")
        reasons = too_much(shares, slack_s=slack_s)
        for earlier, later in itertools.pairwise(looks):
            reasons += happened(earlier.throttling, later.throttling)
        reasons += [f"the GPU: {what}" for look in looks[1:] for gpu in look.gpus for what in gpu.holding]
        return Watched(looks, shares, tuple(dict.fromkeys(reasons)))

    def invalid_reasons(self, rounds: Sequence[Watched]) -> list[str]:
        """Say, in a few words each, what makes the figures of ``rounds`` doubtful; nothing if all was well."""
        if not rounds:
            return []
        found = [*too_much(_sum(rounds)), *dict.fromkeys(what for each in rounds for what in _held(each))]
        for what, clock_of in (("processor", _clock), ("GPU", _gpu_clock)):
            if loss := clock_loss([clock for each in rounds if (clock := clock_of(each)) is not None]):
                found.append(f"the {what}'s clock fell by {100 * loss:.0f} % during the run")
        first, last = self._first.state, rounds[-1].looks[-1].state
        for what, before, after in (
            ("governor", first.governor, last.governor),
            ("power mode", first.power_mode, last.power_mode),
        ):
            if before != after:
                found.append(f"the {what} changed from {before or 'none'} to {after or 'none'}")
        if first.on_battery != last.on_battery:
            found.append(f"the machine went {'onto' if last.on_battery else 'off'} its battery")
        return found

    def summary(self, counted: Sequence[Watched], every: Sequence[Watched]) -> MachineState:
        """Return what the machine did in the rounds that count, of all that were measured."""
        looks = [self._first, *(look for each in counted for look in each.looks)]
        clocks = [clock for each in counted if (clock := _clock(each)) is not None]
        heat = [look.state.temperature_c for look in looks if look.state.temperature_c is not None]
        held = list(dict.fromkeys(what for each in every for what in _held(each)))
        dropped = [each for each in every if not any(each is one for one in counted)]
        shares = _sum(counted)
        last = looks[-1].state
        return MachineState(
            clock_mhz=_three(clocks),
            core_clocks_mhz=_of_cores(looks),
            temperature_c=(heat[0], max(heat)) if heat else None,
            governor=last.governor,
            power_mode=last.power_mode,
            throttled=bool(held) if _tells(looks) else None,
            throttle_reasons=_short(held),
            other_load=_share(shares.others_s, shares.available_s),
            steal=_share(shares.stolen_s, shares.available_s),
            on_battery=last.on_battery,
            gpus=_gpus(looks),
            rounds=len(every),
            dropped=len(dropped),
            dropped_reasons=_short([what for each in dropped for what in each.reasons]),
        )

    def load_since(self, before: Counters) -> Shares:
        """Return what others took since ``before``, which ``now`` gave."""
        return shares_between(before, self.now(), cores=len(self._cpus))

    def now(self) -> Counters:
        """Return the counters of load."""
        busy, stolen = system.core_seconds(self._cpus, self._root)
        # A worker that has ended counts among this process's children instead.
        own = sum(os.times()[:4]) + sum(system.process_seconds(worker, self._root) for worker in self._workers)
        return Counters(time.monotonic(), busy, stolen, own)


def shares_between(start: Counters, end: Counters, *, cores: int) -> Shares:
    """Return what others took of the cores' time between two moments; nothing where the system does not count."""
    others = (end.busy_s - start.busy_s) - (end.own_s - start.own_s)
    counts = end.busy_s > 0
    return Shares(
        (end.wall_s - start.wall_s) * cores if counts else 0.0,
        max(0.0, others),
        max(0.0, end.stolen_s - start.stolen_s),
    )


def too_much(shares: Shares, *, slack_s: float = 0.0) -> list[str]:
    """Say what other processes and the hypervisor took, where it is too much by more than ``slack_s`` seconds."""
    found = []
    for who, seconds in (("other processes took", shares.others_s), ("the hypervisor took away", shares.stolen_s)):
        if shares.available_s > 0 and seconds - slack_s > MAX_OTHER_SHARE * shares.available_s:
            share = 100 * seconds / shares.available_s
            found.append(f"{who} {share:.0f} % of the cores' time, more than {100 * MAX_OTHER_SHARE:.0f} %")
    return found


def clock_loss(clocks: Sequence[float]) -> float:
    """Return the share of its clock that the processor lost from the first to the last third, if too much, else 0."""
    third = len(clocks) // 3
    if third == 0:
        return 0.0
    before, after = median(clocks[:third]), median(clocks[-third:])
    loss = 1 - after / before if before > 0 else 0.0
    return loss if loss > MAX_CLOCK_LOSS else 0.0


def _held(watched: Watched) -> list[str]:
    """Return what of a round's reasons is not the load of others, which is judged by the sum."""
    return [what for what in watched.reasons if not what.startswith(("other processes", "the hypervisor"))]


def _clock(watched: Watched) -> float | None:
    """Return the fastest core's clock in a round."""
    return max((clock for look in watched.looks for clock in look.state.clocks_mhz), default=None)


def _gpu_clock(watched: Watched) -> float | None:
    """Return the fastest GPU's clock in a round."""
    found = (gpu.clock_mhz for look in watched.looks for gpu in look.gpus if gpu.clock_mhz is not None)
    return max(found, default=None)


def _sum(rounds: Sequence[Watched]) -> Shares:
    return Shares(*(sum(values) for values in zip(*(each.shares for each in rounds), strict=True)))


def _share(seconds: float, available_s: float) -> float | None:
    return min(1.0, seconds / available_s) if available_s > 0 else None


def _tells(looks: Sequence[Look]) -> bool:
    """Return whether the system says anything of clocks, heat or throttling: of silence nothing follows."""
    return any(
        look.state.clocks_mhz or look.state.temperature_c is not None or look.throttling.active or look.gpus
        for look in looks
    )


def _of_cores(looks: Sequence[Look]) -> tuple[float, ...]:
    """Return the median of each core's clock."""
    told = [look.state.clocks_mhz for look in looks if look.state.clocks_mhz]
    return tuple(median(each) for each in zip(*told, strict=False))[:_MOST_CORES]


def _three(values: Sequence[float]) -> tuple[float, float, float] | None:
    return (min(values), median(values), max(values)) if values else None


def _short(reasons: Iterable[str]) -> tuple[str, ...]:
    return tuple(what[:_LONGEST] for what in list(dict.fromkeys(reasons))[:_MOST_REASONS])


def _gpus(looks: Sequence[Look]) -> tuple[GpuState, ...]:
    """Return what each GPU did."""
    found = []
    for readings in zip(*(look.gpus for look in looks), strict=False):
        heat = [each.temperature_c for each in readings if each.temperature_c is not None]
        power = [each.power_w for each in readings if each.power_w is not None]
        found.append(
            GpuState(
                name=readings[0].name,
                clock_mhz=_three([each.clock_mhz for each in readings if each.clock_mhz is not None]),
                temperature_c=(heat[0], max(heat)) if heat else None,
                power_w=median(power) if power else None,
                throttle_reasons=_short(what for each in readings for what in (*each.holding, *each.limits)),
            )
        )
    return tuple(found)
