"""Turns the raw times of a benchmark into figures, and decides whether they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import NamedTuple

from edgevit import statistics
from edgevit.bundle.manifest import Environment, Latency
from edgevit.bundle.measured import MachineState
from edgevit.evaluation.messages import Timings
from edgevit.evaluation.start import Start
from edgevit.evaluation.stopping import CONFIDENCE, USUAL_CONFIDENCE

#: Rounds that a valid result needs at least.
MIN_ROUNDS = 10
#: A valid speed-up has an interval no wider than this share of itself.
MAX_INTERVAL_WIDTH = 0.20
#: Of the times, in per cent: what a drawing of their distribution needs.
QUANTILES = tuple(range(0, 101, 5))
#: Block medians are invalid if their interquartile range is more than this share of their median.
MAX_BLOCK_SPREAD = 0.20


@dataclass(kw_only=True, slots=True)
class Record:
    """What one candidate's worker has given: how it started, one block per round, and why it stopped, if it did."""

    name: str
    start: Start | None = None
    blocks: list[Timings] = field(default_factory=list)
    stopped: str | None = None

    @property
    def medians(self) -> list[float]:
        """The median time of each block, in nanoseconds."""
        return [median(block.inference_ns) for block in self.blocks]


class Setup(NamedTuple):
    """What all candidates of a run have in common; ``invalid_reasons`` say what disturbed the machine.

    ``precision`` is the relative half-width of intervals that was asked for; None if a time was.
    """

    batch: int
    threads: int
    duration_s: float
    environment: Environment
    invalid_reasons: tuple[str, ...] = ()
    precision: float | None = None
    machine: MachineState | None = None
    partial: bool = False


class _Speedup(NamedTuple):
    ratio: float
    interval: tuple[float, float]


def latency_of(record: Record, baseline: Record, setup: Setup) -> Latency:
    """Return the figures of one candidate against its baseline, which may be itself."""
    if record.stopped is not None or not record.blocks or record.start is None:
        return _nothing(record.stopped or "it was interrupted before it was timed", setup)
    confidence = USUAL_CONFIDENCE if setup.precision is None else CONFIDENCE
    speedup = _speedup(record, baseline, confidence) if baseline.stopped is None and baseline.blocks else None
    inference_ms = [duration / 1e6 for block in record.blocks for duration in block.inference_ns]
    p50, p90, p99 = statistics.percentiles(inference_ms, (50, 90, 99))
    low, high = statistics.median_interval(record.medians, confidence=confidence)
    reasons = [*_invalid_reasons(record, baseline, speedup, setup), *setup.invalid_reasons]
    if setup.partial:
        reasons.insert(0, f"it was interrupted after {len(record.blocks)} round{'s' * (len(record.blocks) != 1)}")
    return Latency(
        batch=setup.batch,
        threads=setup.threads,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        throughput_ips=1000 * setup.batch / fmean(inference_ms),
        speedup_vs_float32=speedup and speedup.ratio,
        speedup_ci95=speedup and speedup.interval,
        rss_mb=record.blocks[-1].rss_mb,
        cold_start_ms=record.start.cold_start_ms,
        valid=not reasons,
        invalid_reason="; ".join(reasons) or None,
        environment=setup.environment,
        partial=setup.partial,
        rounds=len(record.blocks),
        p50_ci95=(low / 1e6, high / 1e6),
        quantiles_ms=tuple(statistics.percentiles(inference_ms, QUANTILES)),
        load_ms=record.start.load_ms,
        first_ms=record.start.first_ms,
        warm_up=record.start.warm_up,
        machine=setup.machine,
    )


def widest(records: Sequence[Record], baselines: Sequence[Record]) -> float:
    """Return half the widest of the intervals of all medians and speed-ups, as a share of these."""
    pairs = [pair for pair in zip(records, baselines, strict=True) if pair[0].stopped is None]
    return max((_half_width(*pair) for pair in pairs), default=0.0)


def _half_width(record: Record, baseline: Record) -> float:
    """Return half the width of the interval of the median, or of the speed-up if that is wider, as a share of it."""
    low, high = statistics.median_interval(record.medians, confidence=CONFIDENCE)
    widths = [(high - low) / median(record.medians)]
    if baseline is not record and baseline.stopped is None:
        ratio, (low, high) = _speedup(record, baseline, CONFIDENCE)
        widths.append((high - low) / ratio)
    return max(widths) / 2


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
        partial=setup.partial,
        machine=setup.machine,
    )


def _speedup(record: Record, baseline: Record, confidence: float) -> _Speedup:
    ratios = [slow / fast for slow, fast in zip(baseline.medians, record.medians, strict=True)]
    return _Speedup(median(ratios), statistics.median_interval(ratios, confidence=confidence))


def _invalid_reasons(record: Record, baseline: Record, speedup: _Speedup | None, setup: Setup) -> list[str]:
    """Say why the figures cannot be trusted, as far as they themselves show it."""
    reasons = []
    rounds = len(record.blocks)
    if rounds < MIN_ROUNDS:
        longer = math.ceil(setup.duration_s * MIN_ROUNDS / rounds)
        reasons.append(f"only {rounds} round{'s' * (rounds != 1)}, {MIN_ROUNDS} are needed: use --duration {longer}")
    if setup.precision is not None and (half := _half_width(record, baseline)) > setup.precision:
        wanted = setup.duration_s * (half / setup.precision) ** 2  # intervals narrow with the root of the time
        reasons.append(
            f"the precision of {100 * setup.precision:g} % that was asked for was not reached, "
            f"it is {100 * half:.1f} %: use --duration {math.ceil(wanted)}"
        )
    if speedup is None:
        why = f"stopped: {baseline.stopped}" if baseline.stopped else "was not timed"
        reasons.append(f"there is no speed-up, for '{baseline.name}' {why}")
    else:
        low, high = speedup.interval
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
