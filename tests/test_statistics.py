"""Statistics against scipy, and against what must hold for any input."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgevit import statistics

counts = st.integers(1, 3000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))
logit_pairs = st.tuples(st.integers(1, 6), st.integers(2, 8)).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=st.floats(-200, 200, width=32)) for _ in range(2)])
)


@given(counts)
def test_wilson_interval_is_scipys(pair):
    successes, trials = pair
    low, high = statistics.wilson_interval(successes, trials)
    reference = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert 0 <= low <= successes / trials <= high <= 1


def test_wilson_interval_touches_the_ends_exactly():
    assert statistics.wilson_interval(0, 7)[0] == 0.0
    assert statistics.wilson_interval(7, 7)[1] == 1.0


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_interval_wants_counts(successes, trials):
    with pytest.raises(ValueError, match="no rate"):
        statistics.wilson_interval(successes, trials)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test(lost, gained):
    expected = scipy.stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert statistics.mcnemar_p(lost, gained) == pytest.approx(expected, rel=1e-9)
    assert statistics.mcnemar_p(lost, gained) == statistics.mcnemar_p(gained, lost)


def test_mcnemar_takes_counts_beyond_floating_point():
    lost, gained = 12_400, 12_600
    expected = scipy.stats.binomtest(lost, lost + gained).pvalue
    assert statistics.mcnemar_p(lost, gained) == pytest.approx(expected, rel=1e-9)
    assert statistics.mcnemar_p(0, 5000) == 0.0  # 2 ** -4999 is below the smallest float


def test_mcnemar_wants_counts():
    with pytest.raises(ValueError, match="no counts"):
        statistics.mcnemar_p(-1, 2)


@pytest.mark.parametrize("count", [6, 9, 10, 24, 31, 200])
def test_the_interval_of_a_median_lies_between_those_of_order_statistics(count):
    values = np.random.default_rng(3).lognormal(0.5, 0.2, count)
    low, high = statistics.median_interval(values.tolist())
    # scipy's is that of the nearest order statistics outside: it covers 95 % or more.
    outer = scipy.stats.quantile_test(values, q=np.median(values), p=0.5).confidence_interval(confidence_level=0.95)
    ordered = np.sort(values)
    place = int(np.searchsorted(ordered, outer.low))
    assert ordered[place] <= low < ordered[place + 1]
    assert ordered[-place - 2] < high <= ordered[-place - 1]


@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_the_interval_of_a_median_is_around_it_and_within_the_values(values):
    low, high = statistics.median_interval(values)
    assert min(values) <= low <= np.median(values) * (1 + 1e-12)
    assert np.median(values) * (1 - 1e-12) <= high <= max(values)


def test_the_interval_of_the_median_of_many_values_is_no_problem_of_floats():
    values = np.random.default_rng(0).normal(size=2001)
    low, high = statistics.median_interval(values.tolist())
    assert -0.1 < low < np.median(values) < high < 0.1


@pytest.mark.parametrize("rounds", [10, 30])
@pytest.mark.parametrize("noise", ["normal", "skewed", "heavy"])
def test_intervals_of_a_speed_up_cover_it_in_95_of_100_runs(rounds, noise):
    rng = np.random.default_rng(7)
    draws = {
        "normal": lambda: rng.normal(0, 1, rounds),
        "skewed": lambda: rng.exponential(1, rounds) - math.log(2),
        "heavy": lambda: rng.standard_t(2, rounds),
    }
    hits = 0
    for _ in range(1000):
        low, high = statistics.median_interval((2.0 * (1 + 0.03 * draws[noise]())).tolist())
        hits += low <= 2.0 <= high
    assert 930 <= hits <= 970


def test_the_interval_of_a_median_wants_values():
    with pytest.raises(ValueError, match="no values"):
        statistics.median_interval([])


@settings(max_examples=60)
@given(logit_pairs)
def test_kl_is_scipys_and_never_negative(pair):
    reference, logits = pair
    p = scipy.special.softmax(reference.astype(np.float64), axis=1)
    log_q = scipy.special.log_softmax(logits.astype(np.float64), axis=1)
    log_p = scipy.special.log_softmax(reference.astype(np.float64), axis=1)
    expected = (p * (log_p - log_q)).sum(axis=1).mean()
    assert statistics.mean_kl(reference, logits) == pytest.approx(max(0.0, expected), abs=1e-9, rel=1e-9)
    assert statistics.mean_kl(reference, reference) == 0.0


def test_kl_and_sqnr_do_not_overflow():
    huge = np.array([[3e38, -3e38, 0.0]], dtype=np.float32)
    assert statistics.mean_kl(huge, huge) == 0.0
    assert math.isfinite(statistics.mean_kl(np.zeros_like(huge), huge))
    assert statistics.sqnr_db(huge, -huge) == pytest.approx(-20 * math.log10(2))


@given(logit_pairs, st.floats(-50, 50))
def test_kl_does_not_see_a_shift_of_all_logits(pair, shift):
    reference, logits = (array.astype(np.float64) for array in pair)
    assert statistics.mean_kl(reference, logits + shift) == pytest.approx(
        statistics.mean_kl(reference, logits), abs=1e-9
    )


def test_sqnr_is_signal_over_noise():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((500, 100)).astype(np.float32)
    noise = rng.standard_normal((500, 100)).astype(np.float32)
    assert statistics.sqnr_db(signal, signal + 0.1 * noise) == pytest.approx(20.0, abs=0.1)
    assert statistics.sqnr_db(signal, signal) is None
    assert statistics.sqnr_db(np.zeros_like(signal), noise) is None


@given(logit_pairs, st.integers(1, 8), st.randoms(use_true_random=False))
def test_top_k_is_a_stable_sort(pair, k, random):
    logits, _ = pair
    labels = np.array([random.randrange(logits.shape[1]) for _ in logits])
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    expected = [label in row for label, row in zip(labels, order, strict=True)]
    assert statistics.top_k_hits(logits, labels, k).tolist() == expected


def test_top_1_is_argmax_even_among_equals():
    logits = np.zeros((3, 4), dtype=np.float32)
    assert statistics.top_k_hits(logits, np.array([0, 1, 3]), 1).tolist() == [True, False, False]


def test_logits_that_are_not_numbers_hit_and_agree_with_nothing():
    logits = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [1, 0, 0]], dtype=np.float32)
    assert statistics.top_k_hits(logits, np.zeros(3, dtype=np.int64), 1).tolist() == [False, False, True]
    assert statistics.agreement(logits, logits) == pytest.approx(1 / 3)


@given(logit_pairs)
def test_agreement_is_symmetric(pair):
    reference, logits = pair
    assert statistics.agreement(reference, logits) == statistics.agreement(logits, reference)
    assert statistics.agreement(reference, reference) == 1.0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.lists(st.floats(0, 100), min_size=1, max_size=4))
def test_percentiles_lie_within_the_values(values, levels):
    result = statistics.percentiles(values, sorted(levels))
    assert result == sorted(result)
    assert min(values) <= result[0]
    assert result[-1] <= max(values)
