import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgevit.training.augment import augment, erase, flip, shift
from edgevit.training.recipe import TrainRecipe

shapes = st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3]))


def images(shape, seed=0):
    return np.random.default_rng(seed).integers(1, 256, size=shape, dtype=np.uint8)


@given(shape=shapes, seed=st.integers(0, 1000))
def test_shape_and_type_stay_and_the_input_is_untouched(shape, seed):
    pixels = images(shape)
    before = pixels.copy()
    changed = augment(pixels, TrainRecipe(shift=2, flip=0.5, erase=0.5), np.random.default_rng(seed))
    assert changed.shape == shape
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(pixels, before)


@given(shape=shapes, seed=st.integers(0, 1000))
def test_nothing_changes_when_all_is_off(shape, seed):
    pixels = images(shape)
    unchanged = augment(pixels, TrainRecipe(shift=0, flip=0, erase=0), np.random.default_rng(seed))
    np.testing.assert_array_equal(unchanged, pixels)


def test_a_shift_moves_the_image_and_fills_with_black():
    pixels = images((200, 6, 5, 1))
    moved = shift(pixels, 2, np.random.default_rng(0))
    seen = set()
    for before, after in zip(pixels, moved, strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        matches = [(y, x) for y in range(5) for x in range(5) if (padded[y : y + 6, x : x + 5] == after).all()]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 25  # every shift up to two pixels each way happens


def test_a_flip_mirrors_left_and_right():
    pixels = images((4, 3, 5, 3))
    np.testing.assert_array_equal(flip(pixels, 1.0, np.random.default_rng(0)), pixels[:, :, ::-1])


def test_an_erased_rectangle_covers_the_share_that_it_should():
    pixels = np.zeros((500, 28, 28, 1), dtype=np.uint8)
    changed = erase(pixels, 1.0, np.random.default_rng(0)) > 0
    share = changed.mean(axis=(1, 2, 3))
    assert share.max() < 0.21
    assert 0.05 < share.mean() < 0.15
    untouched = erase(pixels, 0.25, np.random.default_rng(0)).any(axis=(1, 2, 3))
    assert 0.15 < untouched.mean() < 0.35
