"""Turns the raw times of a benchmark into figures, and decides whether they can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import NamedTuple

from edgevit import statistics
from edgevit.bundle.manifest import Environment, Latency

#: Rounds that a valid result needs at least.
MIN_ROUNDS = 10
#: A valid speed-up has an interval no wider than this share of itself.
MAX_INTERVAL_WIDTH = 0.20
#: Block medians are invalid if their interquartile range is more than this share of their median.
MAX_BLOCK_SPREAD = 0.20


@dataclass(kw_only=True, slots=True)
class Record:
    """What one candidate's worker has given: a list of times (ns) per round, and why it stopped, if it did."""

    name: str
    cold_start_ms: float = math.nan
    rss_mb: float = math.nan
    blocks: list[list[int]] = field(default_factory=list)
    stopped: str | None = None

    @property
    def medians(self) -> list[float]:
        """The median time of each block, in nanoseconds."""
        return [median(block) for block in self.blocks]


class Setup(NamedTuple):
    """What all candidates of a run have in common; ``invalid_reasons`` say what disturbed the machine."""

    batch: int
    threads: int
    seed: int
    duration_s: float
    environment: Environment
    invalid_reasons: tuple[str, ...]


class _Speedup(NamedTuple):
    ratio: float
    interval: tuple[float, float]
    rounds: int


def latency_of(record: Record, baseline: Record, setup: Setup) -> Latency:
    """Return the figures of one candidate against its baseline, which may be itself."""
    if record.stopped is not None:
        return _nothing(record.stopped, setup)
    speedup = None if baseline.stopped is not None else _speedup(record, baseline, setup.seed)
    reasons = [*_invalid_reasons(record, baseline, speedup, setup.duration_s), *setup.invalid_reasons]
    inference_ms = [duration / 1e6 for block in record.blocks for duration in block]
    p50, p90, p99 = statistics.percentiles(inference_ms, (50, 90, 99))
    return Latency(
        batch=setup.batch,
        threads=setup.threads,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        throughput_ips=1000 * setup.batch / fmean(inference_ms),
        speedup_vs_float32=speedup and speedup.ratio,
        speedup_ci95=speedup and speedup.interval,
        rss_mb=record.rss_mb,
        cold_start_ms=record.cold_start_ms,
        valid=not reasons,
        invalid_reason="; ".join(reasons) or None,
        environment=setup.environment,
    )


def _nothing(reason: str, setup: Setup) -> Latency:
    return Latency(
        batch=setup.batch,
        threads=setup.threads,
        p50_ms=None,
        p90_ms=None,
        p99_ms=None,
        throughput_ips=None,
        speedup_vs_float32=None,
        speedup_ci95=None,
        rss_mb=None,
        cold_start_ms=None,
        valid=False,
        invalid_reason=reason,
        environment=setup.environment,
    )


def _speedup(record: Record, baseline: Record, seed: int) -> _Speedup:
    ratios = [slow / fast for slow, fast in zip(baseline.medians, record.medians, strict=True)]
    return _Speedup(median(ratios), statistics.bootstrap_median(ratios, seed=seed), len(ratios))


def _invalid_reasons(record: Record, baseline: Record, speedup: _Speedup | None, duration_s: float) -> list[str]:
    """Say why the figures cannot be trusted, as far as they themselves show it."""
    reasons = []
    if speedup is None:
        reasons.append(f"there is no speed-up, for '{baseline.name}' stopped: {baseline.stopped}")
    else:
        low, high = speedup.interval
        if speedup.rounds < MIN_ROUNDS:
            counted = f"{speedup.rounds} round{'s' * (speedup.rounds != 1)}"
            longer = math.ceil(duration_s * MIN_ROUNDS / speedup.rounds)
            reasons.append(f"only {counted}, {MIN_ROUNDS} are needed: use --duration {longer}")
        if (width := (high - low) / speedup.ratio) > MAX_INTERVAL_WIDTH:
            reasons.append(
                f"the speed-up's confidence interval is {100 * width:.0f} % wide, "
                f"more than {100 * MAX_INTERVAL_WIDTH:.0f} %"
            )
    lower, middle, upper = statistics.percentiles(record.medians, (25, 50, 75))
    if (spread := (upper - lower) / middle) > MAX_BLOCK_SPREAD:
        reasons.append(
            f"times drifted: the interquartile range of block medians is {100 * spread:.0f} %, "
            f"more than {100 * MAX_BLOCK_SPREAD:.0f} %"
        )
    return reasons
