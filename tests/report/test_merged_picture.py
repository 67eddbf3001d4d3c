"""A picture whose merged patches look like one."""

import io

import numpy as np
from PIL import Image

from edgevit.report.merged_picture import merged_picture

#: Two rows of three patches: the corners of the left and of the right are one token each, two are by themselves.
TOKENS = np.array([[5, 2, 7], [5, 3, 7]])


def drawn(pixels, tokens):
    return np.asarray(Image.open(io.BytesIO(merged_picture(pixels, tokens))).convert("RGB"), dtype=np.float64)


def test_one_token_has_the_mean_colour_and_a_border_and_others_stay():
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :20], pixels[20:, :20] = (200, 0, 0), (0, 0, 100)
    pixels[:20, 20:40] = (0, 90, 0)
    pixels[:, 40:] = 120
    found = drawn(pixels, TOKENS)
    assert found.shape == (96, 144, 3)
    inside = found[8:88, 8:40]
    assert np.abs(inside - (100, 0, 50)).max() < 12
    assert np.abs(found[8:40, 56:88] - (0, 90, 0)).max() < 12
    left, right = found[4:92, 0], found[4:92, -1]  # borders
    assert np.abs(left.mean(0) - (100, 0, 50)).max() > 60
    assert np.abs(left.mean(0) - right.mean(0)).max() > 60  # each its own colour
    assert np.abs(found[40:56, 46] - (100, 0, 50)).max() < 40  # none between the two patches of one token
    assert np.abs(found[4:40, 49] - (0, 90, 0)).max() < 40  # and none around a patch by itself


def test_patches_far_from_one_another_share_a_border_colour():
    pixels = np.full((40, 60, 3), 128, np.uint8)
    found = drawn(pixels, np.array([[1, 2, 1], [3, 3, 4]]))
    first, last, other = found[8:40, 0].mean(0), found[8:40, -1].mean(0), found[56:88, 0].mean(0)
    assert np.abs(first - last).max() < 8
    assert np.abs(first - other).max() > 60


def test_grey_pictures_and_many_patches_are_drawn():
    found = drawn(np.full((70, 70, 1), 77, np.uint8), np.arange(49).reshape(7, 7))
    assert np.abs(found - 77).max() < 4  # nothing is merged
    many = drawn(np.full((518, 518, 3), 77, np.uint8), np.zeros((37, 37), np.int64))
    assert many.shape == (148, 148, 3)
