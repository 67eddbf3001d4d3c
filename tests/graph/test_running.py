"""What a difference between outputs is measured in."""

import numpy as np
import pytest

from edgevit.graph.running import TOLERANCE, largest_difference, measure_of

VALUES = np.random.default_rng(0).uniform(-1, 1, size=(4, 50)).astype(np.float32)


@pytest.mark.parametrize("size", [100, 1, 1e-2, 1e-3])
def test_outputs_of_any_size_are_compared(size):
    values = VALUES * np.float32(size)
    assert largest_difference([values * np.float32(1.1)], [values]) > TOLERANCE
    assert largest_difference([values + np.float32(1e-6)], [values]) < TOLERANCE


def test_rounding_is_no_difference():
    assert largest_difference([VALUES * np.float32(1e-7)], [VALUES * 0]) < TOLERANCE
    assert largest_difference([VALUES * np.float32(1e-4)], [VALUES * 0]) > TOLERANCE


def test_the_measure_of_usual_outputs_is_their_largest_or_one():
    assert measure_of(np.float32([3, -7])) == 7
    assert measure_of(np.float32([0.1, -0.2])) == 1
    assert measure_of(np.float32([1e-9]), least=1e-6) == 1e-6


@pytest.mark.parametrize("mask", [-1e9, np.finfo(np.float32).min, -1e4])
def test_a_mask_is_no_measure_of_the_others(mask):
    masked = np.where(np.arange(VALUES.size).reshape(VALUES.shape) % 3 == 0, np.float32(mask), VALUES)
    wrong = np.where(masked == np.float32(mask), masked, masked + np.float32(0.01))
    assert measure_of(masked) == measure_of(VALUES.flatten()[np.arange(VALUES.size) % 3 != 0])
    assert largest_difference([wrong], [masked]) > TOLERANCE
    assert largest_difference([masked + np.abs(masked) * np.float32(1e-7)], [masked]) < TOLERANCE


def test_one_large_number_and_levels_are_no_masks():
    assert measure_of(np.float32([1e9, 1, 2])) == np.float32(1e9)
    assert measure_of(np.float32([6, 6, 1, 2])) == 6
    assert measure_of(np.float32([255, 255, 0, 0])) == 255
