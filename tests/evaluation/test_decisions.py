"""Models whose logits are decisions of their own: a yes or no, or several labels of an image."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgevit import statistics
from edgevit.errors import DataError
from edgevit.evaluation.decisions import measure_decisions
from edgevit.evaluation.gate import decisions_verdict

RANDOM = np.random.default_rng(3)
YES_OR_NO = RANDOM.standard_normal((200, 1)).astype(np.float32)
SEVERAL = RANDOM.standard_normal((50, 12)).astype(np.float32) - 1

finite_logits = arrays.arrays(np.float32, (7, 3), elements=st.floats(-30, 30, width=32))


def measure(reference, logits, labels=None, **options):
    return measure_decisions(reference, logits, labels, data="data", data_sha256="0" * 64, **options)


@given(finite_logits, finite_logits)
def test_divergences_are_those_of_torchs_bernoullis(reference, logits):
    import torch
    from torch.distributions import Bernoulli, kl_divergence

    one, other = (Bernoulli(logits=torch.from_numpy(values).double()) for values in (reference, logits))
    expected = kl_divergence(one, other).sum(dim=1).mean().item()
    assert statistics.mean_kl(reference, logits, independent=True) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(finite_logits)
def test_a_single_logit_is_that_of_two_classes(reference):
    import torch

    one = reference[:, :1]
    softmax = torch.softmax(torch.from_numpy(statistics.as_classes(one)).double(), dim=1)[:, 1]
    assert np.allclose(softmax, torch.sigmoid(torch.from_numpy(one[:, 0]).double()))


def test_a_single_logit_that_is_noise_is_not_100_percent():
    noise = RANDOM.standard_normal((200, 1)).astype(np.float32)
    found = measure(YES_OR_NO, noise)
    assert not found.passed
    assert found.agreement == pytest.approx(np.mean((YES_OR_NO > 0) == (noise > 0)))
    assert found.agreement < 0.7
    assert found.kl > 0.1
    assert found.decisions.max_distance == pytest.approx(np.abs(YES_OR_NO - noise).max())
    assert found.top1 is None


def test_decisions_that_are_all_alike_show_nothing_and_the_distance_decides():
    low = -5 + 0.1 * YES_OR_NO
    assert measure(low, low).passed
    near, far = measure(low, low + np.float32(0.01)), measure(low, low - np.float32(3))
    assert near.passed
    assert "decides all of these images alike" in near.reason
    assert far.agreement == 1
    assert not far.passed
    assert "20 wanted" in far.reason


def test_labels_tell_how_many_are_decided_rightly():
    labels = (YES_OR_NO[:, 0] > 0).astype(np.int64)
    labels[:20] = 1 - labels[:20]
    found = measure(YES_OR_NO, -YES_OR_NO, labels)
    assert found.top1 == pytest.approx(0.1)
    assert found.delta_top1 == pytest.approx(-0.8)
    assert not found.passed
    assert "decided rightly fell 80.00 points" in found.reason
    assert measure(YES_OR_NO, YES_OR_NO, labels).passed
    with pytest.raises(DataError, match="label 2"):
        measure(YES_OR_NO, YES_OR_NO, labels + 1)


def test_several_labels_are_compared_one_by_one():
    rounded = SEVERAL + np.float32(1e-6)
    found = measure(SEVERAL, rounded)
    assert found.passed
    assert found.agreement == 1
    assert found.decisions.yes == pytest.approx((SEVERAL > 0).mean())
    with pytest.raises(DataError, match="may have several"):
        measure(SEVERAL, SEVERAL, np.zeros(50, dtype=np.int64))


def test_several_labels_against_the_truth_are_as_scikit_learn_has_it():
    random = np.random.default_rng(7)
    truth = random.random((40, 6)) < [0.1, 0.3, 0.5, 0.7, 0.9, 0.2]
    logits = (random.standard_normal((40, 6)).round(1) + truth - 0.5).astype(np.float32)
    truth[:, 5] = False
    found = measure(logits, logits, truth.astype(np.int64))
    # Of scikit-learn 1.9.1: average_precision_score, f1_score (micro), accuracy_score; the last by counting.
    assert found.decisions.truth.mean_ap == pytest.approx(0.7537507379397557)
    assert found.decisions.truth.f1 == pytest.approx(0.6699029126213593)
    assert found.top1 == pytest.approx(0.15)
    assert found.decisions.truth.right == pytest.approx(0.7166666666666667)
    assert (found.delta_top1, found.passed, found.top5) == (0, True, None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


@given(
    arrays.arrays(np.float32, (9, 2), elements=st.sampled_from([-1.5, -0.5, 0, 0.5, 2])),
    arrays.arrays(np.bool_, (9, 2)),
)
def test_average_precision_is_what_its_definition_says(logits, truth):
    expected = []
    for scores, wanted in zip(logits.T, truth.T, strict=True):
        recall = precision = area = 0
        for threshold in sorted(set(scores), reverse=True):
            yes = scores >= threshold
            before, recall = recall, (yes & wanted).sum() / max(wanted.sum(), 1)
            precision = (yes & wanted).sum() / yes.sum()
            area += (recall - before) * precision
        if wanted.any():
            expected.append(area)
    found = statistics.mean_average_precision(logits, truth)
    assert found == (pytest.approx(np.mean(expected)) if expected else None)


def test_labels_of_several_must_be_0_or_1_for_each():
    for wrong in (np.zeros((50, 11), np.int64), np.full((50, 12), 2), np.where(SEVERAL > 5, 0, -1) + np.eye(50, 12)):
        with pytest.raises(DataError, match="0 or 1"):
            measure(SEVERAL, SEVERAL, wrong.astype(np.int64))
    assert measure(SEVERAL, SEVERAL, np.full((50, 12), -1)).decisions.truth is None


def test_a_variant_that_is_noise_fails_where_no_image_is_right_in_all_labels():
    random = np.random.default_rng(5)
    truth = random.random((60, 40)) < 0.2
    reference = np.where(truth ^ (random.random(truth.shape) < 0.05), 2, -2).astype(np.float32)
    reference[:, 0] = np.where(truth[:, 0], -2, 2)  # never right, so no image is
    noise = random.standard_normal(truth.shape).astype(np.float32)
    found = measure(reference, noise, truth.astype(np.int64))
    assert (found.top1, found.delta_top1) == (0, 0)
    assert not found.passed
    assert "F1 of the labels fell" in found.reason
    assert measure(reference, reference + np.float32(0.01), truth.astype(np.int64)).passed
    broken = reference.copy()
    broken[3] = np.nan
    failed = measure(reference, broken, truth.astype(np.int64))
    assert (failed.passed, failed.decisions.truth.mean_ap) == (False, None)


def test_losing_every_yes_of_many_labels_is_not_a_small_loss():
    reference = np.full((10, 1000), -6, dtype=np.float32)
    reference[:, :2] = 3
    lost = np.where(reference > 0, -1, reference).astype(np.float32)
    found = measure(reference, lost)
    assert found.agreement == pytest.approx(0.998)
    assert found.decisions.f1 == 0
    assert not found.passed


def test_logits_that_are_not_numbers_fail_and_can_be_written_down():
    broken = YES_OR_NO.copy()
    broken[0] = np.nan
    found = measure(YES_OR_NO, broken)
    assert not found.passed
    assert (found.kl, found.decisions.mean_distance) == (None, None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


@given(st.floats(0, 1), st.floats(0, 100))
def test_without_labels_no_more_decisions_may_be_lost_than_points(lost, max_drop):
    verdict = decisions_verdict(
        delta=None, lost=lost, alike=False, distance_db=math.inf, finite=True, max_drop=max_drop
    )
    assert verdict.passed == (100 * lost <= max_drop + 1e-9)
