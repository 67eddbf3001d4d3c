"""What a sample shows of a limit, on data whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgevit.evaluation.evidence import (
    LEAST_IMAGES,
    drop_evidence,
    drop_interval,
    figure_evidence,
    flips_evidence,
    mean_of,
    speed_evidence,
)
from edgevit.statistics import wilson_interval

REPEATS = 1000


def drawn(seed, images, lost, gained, repeats=REPEATS):
    """Return counts of lost and gained images, of so many images, where these are the true rates."""
    random = np.random.default_rng(seed)
    return random.multinomial(images, (lost, gained, 1 - lost - gained), repeats)[:, :2].tolist()


@pytest.mark.parametrize(
    ("images", "lost", "gained"), [(200, 0.03, 0.02), (1000, 0.02, 0.01), (5000, 0.01, 0.008), (300, 0.06, 0.01)]
)
def test_intervals_cover_the_truth_and_the_tests_error_is_at_most_5_percent(images, lost, gained):
    found = [drop_interval(*counts, images) for counts in drawn(1, images, lost, gained)]
    true = lost - gained
    inside = np.mean([low <= true <= high for low, high in found])
    assert 0.88 <= inside <= 0.93  # 90 %, of two one-sided limits of 95 %
    # A variant that loses exactly what is allowed passes in one case of twenty at most (and a bit, of 1,000 draws).
    passed = np.mean([high < true for _, high in found])
    failed = np.mean([low > true for low, _ in found])
    assert max(passed, failed) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / REPEATS)


@pytest.mark.parametrize(
    ("images", "lost", "gained"), [(200, 0.03, 0.02), (1000, 0.02, 0.01), (5000, 0.01, 0.008), (300, 0.06, 0.01)]
)
def test_95_percent_intervals_of_a_change_cover_the_truth(images, lost, gained):
    found = [drop_interval(*counts, images, confidence=0.95) for counts in drawn(7, images, lost, gained)]
    assert 0.93 <= np.mean([low <= lost - gained <= high for low, high in found]) <= 0.97


def test_more_images_show_what_few_do_not():
    (counts,) = drawn(2, 50_000, 0.010, 0.007, 1)
    assert drop_evidence(*counts, 50_000, 0.5).word == "passed"  # 0.3 points worse
    (few,) = drawn(3, 200, 0.010, 0.007, 1)
    found = drop_evidence(*few, 200, 0.5)
    assert found.word == "not shown"
    assert f"about {found.needed} images" in found.reason
    (worse,) = drawn(4, 50_000, 0.015, 0.005, 1)
    assert drop_evidence(*worse, 50_000, 0.5).word == "failed"  # 1 point worse


def test_the_number_of_images_that_is_named_would_do():
    found = drop_evidence(4, 3, 1000, 0.5)
    assert found.word == "not shown"
    share = found.needed / 1000
    assert drop_evidence(round(4 * share), round(3 * share), found.needed, 0.5).word != "not shown"
    fewer = int(found.needed * 0.9)
    assert drop_evidence(round(4 * fewer / 1000), round(3 * fewer / 1000), fewer, 0.5).word == "not shown"


@pytest.mark.parametrize(("images", "word"), [(100, "not shown"), (538, "not shown"), (539, "passed")])
def test_no_change_at_all_shows_as_much_as_there_are_images(images, word):
    """The upper limit of a rate of none in n is z² / (n + z²)."""
    assert drop_evidence(0, 0, images, 0.5).word == word


def test_a_loss_that_is_on_the_limit_is_said_to_be():
    found = drop_evidence(10, 5, 1000, 0.5)
    assert (found.word, found.needed) == ("not shown", None)
    assert "on the limit" in found.reason


@given(st.integers(1, 2000), st.data())
def test_verdicts_follow_the_interval(images, data):
    lost = data.draw(st.integers(0, images))
    gained = data.draw(st.integers(0, images - lost))
    max_drop = data.draw(st.sampled_from([0.0, 0.1, 0.5, 2.0, 10.0]))
    low, high = drop_interval(lost, gained, images)
    drop = (lost - gained) / images
    assert low - 1e-9 <= drop <= high + 1e-9
    # The sign test's exact p-value, which is for a drop of nothing, agrees on what is far from it.
    word = drop_evidence(lost, gained, images, max_drop).word
    assert word == ("passed" if high <= max_drop / 100 else "failed" if low > max_drop / 100 else "not shown")
    if lost + gained and stats.binomtest(lost, lost + gained, alternative="greater").pvalue < 1e-3:
        assert low > -1e-9


@pytest.mark.parametrize("counts", [(-1, 0, 10), (6, 5, 10), (0, 0, 0)])
def test_counts_must_be_counts(counts):
    with pytest.raises(ValueError, match="no counts"):
        drop_evidence(*counts, 0.5)


@pytest.mark.parametrize(("flips", "sure"), [(3, 1000), (0, 2000), (50, 1000)])
def test_flips_agree_with_scipys_wilson(flips, sure):
    interval = stats.binomtest(flips, sure).proportion_ci(0.90, method="wilson")
    expected = "passed" if interval.high <= 0.01 else "failed" if interval.low > 0.01 else "not shown"
    assert flips_evidence(flips, sure, sure + 100, 1.0).word == expected


def test_images_that_float32_is_not_sure_of_show_nothing():
    assert flips_evidence(0, 0, 50, 1.0).word == "not shown"
    found = flips_evidence(1, 100, 200, 1.0)
    assert found.word == "not shown"
    assert found.needed is None or found.needed > 200


def test_a_mean_on_its_limit_passes_in_one_case_of_twenty():
    random = np.random.default_rng(5)
    words = [figure_evidence(mean_of(1 - random.exponential(0.01, 200)), "cosine", least=0.99).word for _ in range(300)]
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    assert words.count("passed") / 300 <= most
    assert words.count("failed") / 300 <= most
    random = np.random.default_rng(7)
    assert figure_evidence(mean_of(random.uniform(0.998, 0.9999, 40)), "cosine", least=0.99).word == "passed"
    assert figure_evidence(mean_of(np.full(40, 0.9)), "cosine", least=0.99).word == "failed"


def test_a_figure_that_is_to_be_small_is_shown_from_the_other_side():
    values = np.random.default_rng(6).exponential(0.01, 400)
    words = [figure_evidence(mean_of(values), "KL", most=most).word for most in (0.005, 0.0101, 0.02)]
    assert words == ["failed", "not shown", "passed"]
    found = figure_evidence(mean_of(values), "KL", most=0.0105)
    assert found.needed is None or found.needed > 400
    with pytest.raises(ValueError, match="no limit"):
        figure_evidence(mean_of(values), "KL")


def test_few_images_show_nothing_though_they_are_all_alike():
    found = figure_evidence(mean_of(np.ones(LEAST_IMAGES - 1)), "cosine", least=0.99)
    assert (found.word, found.needed) == ("not shown", 299)
    assert figure_evidence(mean_of(np.ones(298)), "agreement", least=0.99).word == "not shown"
    assert figure_evidence(mean_of(np.ones(299)), "agreement", least=0.99).word == "passed"
    assert figure_evidence(mean_of(np.ones(LEAST_IMAGES - 1)), "agreement", least=0.5).needed == LEAST_IMAGES
    assert figure_evidence(mean_of(np.zeros(30)), "change", least=-0.05, worst=-1.0).word == "not shown"
    assert figure_evidence(mean_of(np.zeros(59)), "change", least=-0.05, worst=-1.0).word == "passed"


@pytest.mark.parametrize(("images", "least"), [(30, 0.95), (60, 0.9), (100, 0.95), (598, 0.995)])
def test_a_share_of_images_on_its_limit_passes_in_one_case_of_twenty(images, least):
    """All counts of images that another answer is given for, with their probabilities, where the share is ``least``."""
    passed = 0.0
    for wrong in range(images):
        values = np.ones(images)
        values[:wrong] = 0
        if figure_evidence(mean_of(values), "agreement", least=least).word != "passed":
            break
        passed += math.comb(images, wrong) * (1 - least) ** wrong * least ** (images - wrong)
    assert passed <= 0.055


@pytest.mark.parametrize(
    ("speedup", "interval", "word"),
    [(1.5, (1.4, 1.6), "passed"), (0.8, (0.7, 0.9), "failed"), (1.05, (0.95, 1.15), "not shown")],
)
def test_a_speed_up_is_shown_by_its_interval(speedup, interval, word):
    found = speed_evidence(speedup, interval, 1.0, 10)
    assert found.word == word
    assert (found.needed is not None) == (word == "not shown")
    if found.needed:
        assert found.needed == pytest.approx(40)


@pytest.mark.parametrize(("trials", "rate"), [(1000, 0.75), (300, 0.9), (100, 0.5)])
def test_wilsons_interval_covers_the_truth(trials, rate):
    counts = np.random.default_rng(6).binomial(trials, rate, REPEATS)
    inside = np.mean([low <= rate <= high for low, high in (wilson_interval(int(each), trials) for each in counts)])
    assert 0.93 <= inside <= 0.97
