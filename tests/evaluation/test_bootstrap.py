"""Intervals of figures that come from sums over images, against SciPy's and on data whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from edgevit.evaluation.bootstrap import ImageFigure, bca_interval
from edgevit.evaluation.evidence import mean_of, ratio
from edgevit.evaluation.output_accuracy import mean_iou


@pytest.mark.parametrize("seed", range(3))
def test_means_have_scipys_interval(seed):
    values = 1 - np.random.default_rng(seed).exponential(0.01, 150)
    expected = stats.bootstrap((values,), np.mean, confidence_level=0.9, method="BCa", n_resamples=4000, rng=1)
    found = bca_interval(mean_of(values), resamples=4000)
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert np.allclose(found, expected.confidence_interval, atol=0.06 * width)


def test_ratios_have_scipys_interval():
    random = np.random.default_rng(3)
    hits, found = random.poisson(4, 120), random.poisson(5, 120) + 4
    expected = stats.bootstrap(
        (hits, found), lambda one, other: one.sum() / other.sum(), paired=True, vectorized=False,
        confidence_level=0.9, method="BCa", n_resamples=3000, rng=1,
    )  # fmt: skip
    own = bca_interval(ImageFigure(np.stack([hits, found], axis=1).astype(float), ratio), resamples=3000)
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert np.allclose(own, expected.confidence_interval, atol=0.06 * width)


def test_95_percent_intervals_cover_the_truth_of_what_is_skewed():
    random = np.random.default_rng(4)
    covered = 0
    for seed in range(1000):
        low, high = bca_interval(mean_of(random.exponential(1, 150)), confidence=0.95, resamples=400, seed=seed)
        covered += low <= 1 <= high
    assert 930 <= covered <= 970


def test_an_image_is_drawn_with_all_that_it_gives():
    """Images that agree with themselves tell less than as many places that are independent."""
    whole = np.repeat(np.random.default_rng(5).integers(0, 2, 60), 50).reshape(60, 50)
    images = bca_interval(ImageFigure(np.stack([whole.sum(1), np.full(60, 50)], axis=1).astype(float), ratio))
    places = bca_interval(mean_of(whole.ravel().astype(float)))
    assert images[1] - images[0] > 4 * (places[1] - places[0])


def test_what_never_differs_has_no_width_and_nothing_has_no_interval():
    assert bca_interval(mean_of(np.full(20, 0.5))) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no images"):
        bca_interval(mean_of(np.zeros(0)))


def test_mean_iou_leaves_out_classes_that_no_one_has():
    # Class 0: 6 of 8 + 6 - 6; class 1: 2 of 2 + 4 - 2; class 2 is nowhere.
    assert mean_iou(np.array([[6.0, 2, 0, 8, 2, 0, 6, 4, 0]])) == pytest.approx([(6 / 8 + 2 / 4) / 2])
