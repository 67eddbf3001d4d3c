"""Joules per inference: what the blocks took above what the idle machine takes, with its interval."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.measured import Energy
from edgevit.evaluation.conditions import Conditions, too_much
from edgevit.machine.meter import Meter
from edgevit.machine.power import PowerSource
from edgevit.progress import Progress

#: Blocks that an interval is made of at least.
MIN_BLOCKS = 5
_RESAMPLES = 2000
#: Stretches of idle time, and the seconds of one: sensors of power are slower than counters.
_STRETCHES = 20
_LEAST_S, _LEAST_LAGGING_S, _MOST_S, _SETTLE_S = 0.05, 0.2, 0.2, 0.5


class Idle(NamedTuple):
    """Watts of stretches of time in which nothing was asked of the workers; ``reason`` says why they are of no use."""

    watts: tuple[float, ...] = ()
    reason: str | None = None


class Drawn(NamedTuple):
    """What a block took: joules in so many seconds, and how many inferences that was."""

    joules: float
    seconds: float
    inferences: int


def measure_idle(meter: Meter, conditions: Conditions, duration_s: float, progress: Progress) -> Idle:
    """Measure the power of the machine while the workers, which are loaded and warm, sleep."""
    least_s = _LEAST_LAGGING_S if meter.source.lags else _LEAST_S
    stretch_s = min(_MOST_S, max(least_s, duration_s / 100))
    time.sleep(_SETTLE_S)  # until what they have just done no longer shows
    before = conditions.now()
    spans = []
    for _ in progress.track(range(_STRETCHES), total=_STRETCHES, label="Measuring idle power"):
        start_s = time.monotonic()
        time.sleep(stretch_s)
        spans.append((start_s, time.monotonic()))
    meter.sample()
    if busy := too_much(conditions.load_since(before)):
        return Idle((), f"idle power could not be measured: {busy[0]}")
    drawn = [(meter.joules(start_s, end_s), end_s - start_s) for start_s, end_s in spans]
    return Idle(tuple(joules / seconds for joules, seconds in drawn if joules is not None))


def energy_of(drawn: Sequence[Drawn], idle_w: Sequence[float], source: PowerSource, *, seed: int) -> Energy | str:
    """Return the energy per inference of blocks ``drawn``, or why there is none.

    ``idle_w`` are watts of stretches of time in which the loaded workers slept. Their mean is subtracted, and how
    uncertain it is goes into the interval, too.
    """
    if len(drawn) < MIN_BLOCKS or len(idle_w) < MIN_BLOCKS:
        which = f"{len(drawn)} blocks" if len(drawn) < MIN_BLOCKS else f"{len(idle_w)} stretches of idle time"
        return f"the samples of {source.name} tell the energy of {which} only, {MIN_BLOCKS} are needed"
    each = 1000 / fmean(block.inferences for block in drawn)
    joules = np.array([block.joules for block in drawn])
    seconds = np.array([block.seconds for block in drawn])
    middle, low, high = net_interval(joules, seconds, np.array(idle_w), seed=seed)
    return Energy(
        mj=middle * each,
        mj_ci95=(low * each, high * each),
        source=source.name,
        covers=source.covers,
        idle_w=max(0.0, fmean(idle_w)),
        load_w=max(0.0, float(joules.sum() / seconds.sum())),
        blocks=len(drawn),
    )


def net_interval(
    joules: NDArray[np.float64], seconds: NDArray[np.float64], idle_w: NDArray[np.float64], *, seed: int
) -> tuple[float, float, float]:
    """Return the mean of joules (N,) less idle power times seconds (N,), and its 95 % interval.

    Blocks and stretches of idle time (M,) are drawn again, each by itself, and the distribution of the deviation in
    standard errors is taken from them: the bootstrap-t (Efron and Tibshirani 1993, chapter 12), which for few blocks
    covers what it says, where percentiles cover less.
    """
    rng = np.random.default_rng(seed)
    middle, error = _net(joules, seconds, idle_w)
    blocks = rng.integers(0, len(joules), (_RESAMPLES, len(joules)))
    idle = rng.integers(0, len(idle_w), (_RESAMPLES, len(idle_w)))
    means, errors = _net(joules[blocks], seconds[blocks], idle_w[idle])
    usable = errors > 0
    if not usable.any():
        return float(middle), float(middle), float(middle)
    low, high = np.percentile((means[usable] - middle) / errors[usable], (2.5, 97.5))
    return float(middle), float(middle - high * error), float(middle - low * error)


def _net(
    joules: NDArray[np.float64], seconds: NDArray[np.float64], idle_w: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means of the last axis, and their standard errors."""
    idle = idle_w.mean(axis=-1)
    net = joules - idle[..., None] * seconds
    spread = net.var(axis=-1, ddof=1) / net.shape[-1]
    spread = spread + seconds.mean(axis=-1) ** 2 * idle_w.var(axis=-1, ddof=1) / idle_w.shape[-1]
    return net.mean(axis=-1), np.sqrt(spread)
