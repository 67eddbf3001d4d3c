"""The expected calibration error, against figures by hand and those of torchmetrics."""

import numpy as np
import pytest

from edgevit.evaluation.calibration_error import BINS, calibration_error


def logits_of(confidence):
    """Return two logits whose softmax gives class 0 that probability."""
    odds = np.log(np.asarray(confidence) / (1 - np.asarray(confidence)))
    return np.stack([odds, np.zeros_like(odds)], axis=1).astype(np.float32)


def test_by_hand():
    # Two bins: four answers at 0.9, of which three are right, and one at 0.6, which is wrong.
    found = calibration_error(logits_of([0.9, 0.9, 0.9, 0.9, 0.6]), np.array([0, 0, 0, 1, 1]))
    assert found.ece == pytest.approx(4 / 5 * abs(0.75 - 0.9) + 1 / 5 * 0.6, abs=1e-6)
    assert [(each.count, round(each.confidence, 4), each.right) for each in found.bins] == [(1, 0.6, 0), (4, 0.9, 0.75)]


@pytest.mark.parametrize(
    ("seed", "expected"),
    # torchmetrics 1.9.0: multiclass_calibration_error(softmax(logits), labels, 7, n_bins=15, norm="l1")
    [(0, 0.3034757971763611), (1, 0.3048824369907379), (2, 0.3236662745475769), (4, 0.30404409766197205)],
)
def test_as_torchmetrics_has_it(seed, expected):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(500, 7)) * 2).astype(np.float32)
    labels = rng.integers(0, 7, 500)
    logits[np.arange(500), labels] += 1
    assert calibration_error(logits, labels).ece == pytest.approx(expected, abs=1e-6)


def test_what_knows_how_often_it_is_right_has_no_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 0.999, 40_000)
    labels = (rng.uniform(size=len(confidence)) > confidence).astype(np.int64)
    assert calibration_error(logits_of(confidence), labels).ece < 0.01
    assert calibration_error(logits_of(np.clip(confidence * 1.2, 0, 0.999)), labels).ece > 0.08


def test_a_single_logit_and_decisions_are_answers_of_two():
    logits = np.array([[2.0], [-2.0], [0.5]], dtype=np.float32)
    labels = np.array([1, 0, 0])
    assert calibration_error(logits, labels) == calibration_error(logits, labels[:, None], independent=True)


def test_bins_are_few_and_hold_all_answers():
    rng = np.random.default_rng(0)
    found = calibration_error(rng.normal(size=(300, 3)).astype(np.float32) * 9, rng.integers(0, 3, 300))
    assert len(found.bins) <= BINS
    assert sum(each.count for each in found.bins) == 300


def test_certain_answers_fall_into_the_last_bin_and_numbers_that_are_none_have_no_error():
    assert calibration_error(np.array([[200.0, 0.0]], dtype=np.float32), np.array([0])).ece == 0
    assert calibration_error(np.array([[np.nan, 0.0]], dtype=np.float32), np.array([0])) is None
