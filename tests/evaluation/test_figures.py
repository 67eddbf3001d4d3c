"""Figures, and what makes them invalid, from times that are made up."""

import pytest

from edgevit.bundle.manifest import Environment
from edgevit.bundle.measured import WarmUp
from edgevit.evaluation.figures import Record, Setup, latency_of, widest
from edgevit.evaluation.messages import Timings
from edgevit.evaluation.start import Start

PLACE = Environment(
    machine="x86_64", cpu="c", cpu_features=(), cores=2, os="o", python="3.11", packages={}, measured_at="t"
)
MS = 1_000_000


def setup(*invalid_reasons, **more):
    return Setup(batch=2, threads=1, duration_s=2.0, environment=PLACE, invalid_reasons=invalid_reasons, **more)


def record(name, block_ms):
    blocks = [Timings(inference_ns=[int(value * MS)] * 3, rss_mb=50.0, started_ns=0, ended_ns=1) for value in block_ms]
    start = Start(5.0, 3.0, 1.0, WarmUp(inferences=3, seconds=0.1, steady=True, method="m"), 1e6, None)
    return Record(name=name, start=start, blocks=blocks)


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


def test_what_was_interrupted_is_partial_and_in_doubt():
    found = latency_of(record("int8", [1] * 20), record("float32", [1] * 20), setup(partial=True))
    assert (found.partial, found.valid, found.p50_ms) == (True, False, 1.0)
    assert found.invalid_reason == "it was interrupted after 20 rounds"
    nothing = latency_of(record("int8", []), record("float32", []), setup(partial=True))
    assert (nothing.partial, nothing.p50_ms, nothing.valid) == (True, None, False)


def test_a_precision_that_was_not_reached_is_said_with_the_time_that_would_do():
    wide = [1.0, 1.04] * 10
    found = latency_of(record("int8", wide), record("float32", [2] * 20), setup(precision=0.005))
    assert not found.valid
    assert found.invalid_reason == (
        "the precision of 0.5 % that was asked for was not reached, it is 2.0 %: use --duration 31"
    )
    assert latency_of(record("int8", wide), record("float32", [2] * 20), setup(precision=0.05)).valid


def test_how_precise_a_run_is_goes_by_its_widest_interval():
    steady, drifting = record("float32", [2] * 20), record("int8", [1.0, 1.04] * 10)
    stopped = Record(name="fp16", stopped="it died")
    assert widest([steady], [steady]) == 0
    assert widest([steady, drifting], [steady, steady]) == pytest.approx(0.02, rel=0.05)
    assert widest([steady, stopped], [steady, steady]) == 0


def test_the_start_and_the_distribution_are_told():
    found = latency_of(record("int8", range(1, 21)), record("float32", [1] * 20), setup())
    assert (found.load_ms, found.first_ms, found.cold_start_ms, found.rss_mb) == (3.0, 1.0, 5.0, 50.0)
    assert (found.quantiles_ms[0], found.quantiles_ms[10], found.quantiles_ms[-1]) == (1.0, 10.5, 20.0)
    assert found.p50_ci95[0] < found.p50_ms < found.p50_ci95[1]
    assert found.rounds == 20
