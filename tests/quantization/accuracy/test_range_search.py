"""Observers that are tried on images that they were not fitted to."""

import numpy as np
import pytest
from onnx_files import search_ranges

from edgevit.errors import DataError
from edgevit.quantization.accuracy.range_search import ALPHAS, OBSERVERS
from edgevit.quantization.ptq import CalibrationImages
from edgevit.recipes import Rewrites


def source(images):
    return CalibrationImages(lambda: iter([images[:5], images[5:]]), 2)


def test_each_observer_is_tried_for_each_scheme_and_the_nearest_comes_first(quantized):
    found = search_ranges(quantized.path, source(quantized.images), ["asymmetric", "symmetric"])
    assert list(found) == ["asymmetric", "symmetric"]
    for trials in found.values():
        assert {trial.observer for trial in trials} == set(OBSERVERS)
        noise = [trial.sqnr_db for trial in trials]
        assert noise == sorted(noise, reverse=True)
        assert noise[0] > noise[-1]
        assert all(trial.kl > 0 and 0 <= trial.agreement <= 1 for trial in trials)


def test_outliers_that_mean_nothing_are_clipped(write_graph):
    """One value, which the weights leave out, is all that the widest range is for."""
    random = np.random.default_rng(0)
    w = random.normal(size=(64, 5)).astype(np.float32)
    w[0] = 0
    path = write_graph(
        "g (float[n, 1, 8, 8] images) => (float[n, 5] logits) { x = Flatten(images) [only] logits = MatMul(x, w) }",
        {"w": w},
    )
    images = random.normal(size=(80, 1, 8, 8)).astype(np.float32)
    images[0, 0, 0, 0] = 3000
    trials = search_ranges(path, source(images), ["asymmetric"])["asymmetric"]
    figures = {trial.observer: trial.sqnr_db for trial in trials}
    assert figures["minmax"] == min(figures.values())
    assert trials[0].sqnr_db > figures["minmax"] + 10


def test_alphas_are_tried_with_one_observer_and_the_others_with_the_best_of_them(quantized):
    rewrites = Rewrites(alpha="auto")
    trials = search_ranges(quantized.path, source(quantized.images), ["asymmetric"], rewrites=rewrites)["asymmetric"]
    first = [trial for trial in trials if trial.observer == OBSERVERS[0]]
    assert {trial.alpha for trial in first} == set(ALPHAS)
    assert {trial.alpha for trial in trials if trial.observer != OBSERVERS[0]} == {first[0].alpha}
    assert len({trial.sqnr_db for trial in first}) == len(ALPHAS)


def test_an_observer_that_is_named_is_the_only_one(quantized):
    found = search_ranges(
        quantized.path, source(quantized.images), ["symmetric"], observer="mse", rewrites=Rewrites(alpha="auto")
    )
    assert {(trial.observer, trial.alpha) for trial in found["symmetric"]} == {("mse", alpha) for alpha in ALPHAS}


def test_three_images_are_too_few(quantized):
    with pytest.raises(DataError, match="too few"):
        search_ranges(quantized.path, source(quantized.images[:3]), ["asymmetric"])
