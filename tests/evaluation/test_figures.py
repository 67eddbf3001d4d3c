"""Figures, and what makes them invalid, from times that are made up."""

import pytest

from edgevit.bundle.manifest import Environment
from edgevit.evaluation.figures import Record, Setup, latency_of

PLACE = Environment(
    machine="x86_64", cpu="c", cpu_features=(), cores=2, os="o", python="3.11", packages={}, measured_at="t"
)
MS = 1_000_000


def setup(*invalid_reasons):
    return Setup(batch=2, threads=1, seed=0, duration_s=2.0, environment=PLACE, invalid_reasons=invalid_reasons)


def record(name, block_ms):
    blocks = [[int(value * MS)] * 3 for value in block_ms]
    return Record(name=name, cold_start_ms=5.0, rss_mb=50.0, blocks=blocks)


def test_ratios_are_taken_within_a_round():
    drift = [1 + index / 100 for index in range(20)]  # the machine slows down, for both alike
    slow, fast = record("float32", [4 * value for value in drift]), record("int8", [2 * value for value in drift])
    result = latency_of(fast, slow, setup())
    assert result.speedup_vs_float32 == pytest.approx(2.0, abs=1e-6)
    assert result.speedup_ci95 == pytest.approx((2.0, 2.0), abs=1e-6)
    assert result.valid
    assert result.invalid_reason is None
    assert result.throughput_ips == pytest.approx(2 * 1000 / (2 * sum(drift) / 20), rel=1e-6)


def test_few_rounds_are_invalid():
    result = latency_of(record("int8", [1] * 9), record("float32", [2] * 9), setup())
    assert not result.valid
    assert result.invalid_reason == "only 9 rounds, 10 are needed: use --duration 3"


def test_a_wide_interval_is_invalid():
    slow = record("float32", [1, 3] * 10)
    result = latency_of(record("int8", [1] * 20), slow, setup())
    assert "the speed-up's confidence interval is" in result.invalid_reason
    assert not result.valid


def test_drifting_times_are_invalid_even_if_the_ratio_stands():
    block_ms = [1.0] * 10 + [1.5] * 10
    result = latency_of(record("int8", block_ms), record("float32", [2 * value for value in block_ms]), setup())
    assert result.speedup_ci95 == pytest.approx((2, 2))
    assert "times drifted" in result.invalid_reason


def test_what_disturbed_the_machine_is_passed_on():
    result = latency_of(record("int8", [1] * 20), record("float32", [1] * 20), setup("too hot", "too loud"))
    assert result.invalid_reason == "too hot; too loud"
    assert not result.valid
    assert result.p50_ms == 1.0
