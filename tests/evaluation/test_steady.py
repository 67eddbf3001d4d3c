"""When a warm-up is over, against scipy's Kendall's tau."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from edgevit.evaluation import steady
from edgevit.evaluation.steady import trend_p, warm_up


@given(st.lists(st.floats(-1e3, 1e3), min_size=12, max_size=40, unique=True))
def test_the_test_is_that_of_kendalls_tau_over_time(values):
    exact = scipy.stats.kendalltau(range(len(values)), values, method="exact").pvalue
    assert trend_p(values) == pytest.approx(exact, abs=0.04)


@given(st.lists(st.integers(0, 3), min_size=12, max_size=40))
def test_equal_values_are_corrected_for_as_scipy_does(values):
    p = trend_p(values)
    assert 0 <= p <= 1
    if len(set(values)) > 1 and p < 1:
        tau = scipy.stats.kendalltau(range(len(values)), values, method="asymptotic", variant="b")
        # scipy takes no half step off for continuity: without it, its p-value is the smaller one.
        assert p >= tau.pvalue - 1e-12
        assert p == pytest.approx(tau.pvalue, abs=0.12)


def test_a_trend_is_seen_and_noise_is_none():
    noise = np.random.default_rng(0).normal(0, 0.02, 12)
    assert trend_p((np.linspace(2, 1, 12) + noise).tolist()) < 0.001
    assert trend_p((1 + noise).tolist()) > 0.05
    assert trend_p([1.0] * 12) == 1.0


def test_noise_is_taken_for_a_trend_about_as_often_as_the_level_says():
    rng = np.random.default_rng(1)
    found = sum(trend_p(rng.normal(size=12).tolist()) < 0.05 for _ in range(1000))
    assert 20 <= found <= 70


class Engine:
    """Inferences whose time falls from ``first`` to 1 ms, by half in each ``fall_ms``; ``noise`` is its share."""

    def __init__(self, first=1.0, fall_ms=50.0, noise=0.01, last_ms=1.0):
        self.first, self.fall_ms, self.noise, self.last_ms = first, fall_ms, noise, last_ms
        self.now_ms = 0.0
        self.rng = np.random.default_rng(2)

    def infer_ns(self, times):
        found = []
        for _ in range(times):
            each = self.last_ms + (self.first - self.last_ms) * 0.5 ** (self.now_ms / self.fall_ms)
            each *= 1 + self.noise * self.rng.normal()
            self.now_ms += each
            found.append(round(each * 1e6))
        return found


def test_a_steady_engine_is_warm_after_the_window():
    found = warm_up(Engine().infer_ns, least=3, limit_s=10)
    assert found.steady
    assert len(found.inference_ns) == 3 + 12 * 5


@pytest.mark.parametrize(("first", "fall_ms"), [(5.0, 60.0), (3.0, 100.0), (0.5, 100.0)])
def test_an_engine_whose_times_change_is_waited_for(first, fall_ms):
    engine = Engine(first=first, fall_ms=fall_ms)
    found = warm_up(engine.infer_ns, least=3, limit_s=10)
    assert found.steady
    assert engine.now_ms > 2 * fall_ms
    settled = np.median(found.inference_ns[-20:]) / 1e6
    assert settled == pytest.approx(1.0, rel=0.1)


def test_one_that_never_gets_steady_is_given_up_in_time():
    engine = Engine(first=50.0, fall_ms=3000.0)
    found = warm_up(engine.infer_ns, least=3, limit_s=2)
    assert not found.steady
    assert 2000 <= engine.now_ms < 2600


def test_a_slow_engine_has_the_least_that_was_asked_for():
    found = warm_up(Engine(first=900.0, last_ms=900.0).infer_ns, least=3, limit_s=1)
    assert (len(found.inference_ns), found.steady) == (3, False)


def test_a_fast_engine_is_looked_at_in_stretches_that_a_governor_acts_in():
    engine = Engine(first=0.01, last_ms=0.01)
    found = warm_up(engine.infer_ns, least=3, limit_s=10)
    assert found.steady
    assert engine.now_ms >= 55
    assert len(found.inference_ns) <= steady._MOST_INFERENCES + 500
