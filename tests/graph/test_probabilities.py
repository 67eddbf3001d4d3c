"""Logits and probabilities, compared at any size; scipy is the oracle."""

import numpy as np
import pytest
import scipy.special

from edgevit.graph.probabilities import logarithms

LOGITS = np.random.default_rng(0).normal(size=(8, 20)).astype(np.float32)


def probabilities(logits, activation):
    exact = logits.astype(np.float64)
    made = scipy.special.softmax(exact, axis=1) if activation == "softmax" else scipy.special.expit(exact)
    return made.astype(np.float32)


def difference(logits, given, activation, **off):
    found, expected = logarithms(logits, given, activation, **off)
    return np.abs(found - expected).max()


@pytest.mark.parametrize("scale", [1, 10])
@pytest.mark.parametrize(("activation", "moved"), [("softmax", 0), ("sigmoid", 0), ("sigmoid", -9), ("sigmoid", 9)])
def test_the_same_logits_differ_by_nothing(activation, moved, scale):
    logits = LOGITS * scale + moved
    assert difference(logits, probabilities(logits, activation), activation) < 1e-6


@pytest.mark.parametrize(("activation", "moved"), [("softmax", 0), ("sigmoid", -9), ("sigmoid", -20)])
def test_other_logits_differ_however_small_their_probabilities_are(activation, moved):
    logits = np.tile(LOGITS, 1000) + moved
    others = logits.copy()
    others[:, 7] += 0.3
    given = probabilities(logits, activation)
    assert given.max() < 2e-3
    assert difference(others, given, activation) == pytest.approx(0.3, abs=2e-3)


def test_what_is_inexact_is_left_out_and_no_more():
    logits = LOGITS - 9
    given = probabilities(logits, "sigmoid")
    noise = np.random.default_rng(1).uniform(-3e-7, 3e-7, given.shape)
    assert difference(logits, (given + noise).astype(np.float32), "sigmoid") > 1e-3
    assert difference(logits, (given + noise).astype(np.float32), "sigmoid", error=3e-7) < 1e-4
    assert difference(logits + 0.1, (given + noise).astype(np.float32), "sigmoid", error=3e-7) > 0.09


def test_classes_that_decide_nothing_may_differ():
    given = probabilities(np.array([[0, -20, -40]], np.float32), "softmax")
    assert difference(np.array([[0, -20, -35]], np.float32), given, "softmax") < 1e-6
    assert difference(np.array([[0, -21, -40]], np.float32), given, "softmax") == pytest.approx(1, abs=1e-4)
