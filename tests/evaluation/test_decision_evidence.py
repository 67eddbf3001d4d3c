"""Verdicts of three on models whose logits decide one by one."""

import numpy as np
import pytest

from edgevit.evaluation.decision_evidence import decisions_evidence


def logits(seed, images, labels):
    return np.random.default_rng(seed).normal(0, 3, (images, labels)).astype(np.float32)


def words(*given):
    return [each.word for each in decisions_evidence(*given)]


@pytest.mark.parametrize("labels", [1, 5])
def test_the_same_answers_on_many_images_pass_and_on_few_show_nothing(labels):
    reference = logits(0, 3000, labels)
    assert words(reference, reference, None, 0.5) == ["passed"]
    assert words(reference[:20], reference[:20], None, 0.5) == ["not shown"]


@pytest.mark.parametrize("labels", [1, 5])
def test_answers_that_are_lost_fail(labels):
    reference = logits(1, 3000, labels)
    broken = np.where(np.random.default_rng(2).random(reference.shape) < 0.1, -reference, reference)
    assert words(reference, broken, None, 0.5) == ["failed"]
    truth = (reference > 0).astype(np.int64)
    assert "failed" in words(reference, broken, truth if labels > 1 else truth[:, 0], 0.5)


def test_decisions_that_float32_is_not_sure_of_are_coin_tosses():
    reference = logits(3, 3000, 1)
    near = np.abs(reference) < 0.1
    assert near.any()
    assert words(reference, np.where(near, -reference, reference), None, 0.5) == ["passed"]


def test_labels_are_what_decides_where_there_are_any():
    reference = logits(4, 4000, 5)
    truth = (reference > 0).astype(np.int64)
    wrong = np.random.default_rng(5).random(reference.shape) < 0.05  # float32 itself is wrong on these
    other = np.where(wrong, -reference, reference)
    assert words(other, reference, truth, 0.5) == ["passed", "passed"]  # all that it changes is for the better
    assert words(other, reference, None, 0.5) == ["failed"]
    assert "failed" in words(reference, other, truth, 0.5)


def test_images_of_one_kind_show_nothing():
    reference = np.abs(logits(6, 1000, 1))
    assert words(reference, reference, None, 0.5) == ["not shown"]


def test_what_is_not_finite_is_never_right():
    reference = logits(7, 3000, 1)
    broken = reference.copy()
    broken[::10] = np.nan
    assert words(reference, broken, (reference[:, 0] > 0).astype(np.int64), 0.5) == ["failed"]
