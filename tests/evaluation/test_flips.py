"""The images whose answer changed."""

import numpy as np
import pytest

from edgevit.evaluation.accuracy_details import MOST_FLIPS
from edgevit.evaluation.flips import flipped_decisions, flipped_images, margins

NAMES = ("cat", "dog", "owl")


def test_margins_are_those_of_the_two_largest_probabilities():
    found = margins(np.log(np.array([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]], dtype=np.float32)))
    assert found == pytest.approx([0.5, 0.0], abs=1e-6)
    assert margins(np.array([[np.nan, 0, 1]], dtype=np.float32)) == [0.0]


def test_those_come_first_that_float32_was_surest_of():
    before = np.array([[1, 0, 0], [5, 0, 0], [0, 3, 0]], dtype=np.float32)
    after = np.array([[0, 1, 0], [0, 0, 2], [0, 3, 0]], dtype=np.float32)
    found = flipped_images(before, after, np.array([1, 0, 1]), NAMES, "image {}".format)
    assert found.total == 2
    assert found.places == (1, 0)
    first = found.images[0]
    assert (first.image, first.label, first.float32, first.variant) == ("image 1", "cat", "cat", "owl")
    assert first.float32_margin == pytest.approx(margins(before)[1])
    assert first.variant_margin == pytest.approx(margins(after)[1])


def test_a_single_logit_says_yes_or_no():
    before, after = np.array([[2.0], [-1.0]], dtype=np.float32), np.array([[-2.0], [-1.0]], dtype=np.float32)
    (flip,) = flipped_images(before, after, None, ("not cat", "cat"), str).images
    assert (flip.label, flip.float32, flip.variant) == (None, "cat", "not cat")


def test_of_several_decisions_the_surest_is_named():
    before, after = np.array([[9.0, 0.1, -1]], dtype=np.float32), np.array([[-1.0, -0.1, -1]], dtype=np.float32)
    found = flipped_decisions(before, after, np.array([[0, 1, 0]]), NAMES, str)
    (flip,) = found.images
    assert (found.total, flip.label, flip.float32, flip.variant) == (1, "not cat", "cat", "not cat")
    assert flip.float32_margin == pytest.approx(np.tanh(4.5))


def test_no_more_are_kept_than_people_look_at():
    before = np.tile(np.array([[1, 0, 0]], dtype=np.float32), (500, 1))
    found = flipped_images(before, before[:, ::-1], None, NAMES, str)
    assert (found.total, len(found.images)) == (500, MOST_FLIPS)
