import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevit.data.preprocess import Preprocess
from edgevit.training.pil_augmentation import OPERATIONS, augmented_pixels, randaugment, random_crop
from edgevit.training.recipe import TrainRecipe

RGB = Preprocess(size=(24, 32), resize=36, mean=(0.5,) * 3, std=(0.5,) * 3)
GREY = Preprocess(size=(24, 32), resize=36, mean=(0.5,), std=(0.5,), channel_order="L")


def photo(width=60, height=50, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@given(
    width=st.integers(1, 80),
    height=st.integers(1, 80),
    crop=st.sampled_from([0.05, 0.5, 1.0]),
    count=st.integers(0, 3),
    preprocess=st.sampled_from([RGB, GREY]),
    seed=st.integers(0, 1000),
)
def test_any_image_comes_out_in_the_models_size(width, height, crop, count, preprocess, seed):
    recipe = TrainRecipe(crop=crop, randaugment=count, magnitude=10)
    pixels = augmented_pixels(photo(width, height), preprocess, recipe, np.random.default_rng(seed))
    assert pixels.shape == (*preprocess.size, preprocess.channels)
    assert pixels.dtype == np.uint8


def test_nothing_random_is_the_preprocessing_of_the_model():
    pixels = augmented_pixels(photo(), RGB, TrainRecipe(), np.random.default_rng(0))
    np.testing.assert_array_equal(pixels, RGB.geometry(photo()))


def test_the_channel_order_is_the_models():
    recipe = TrainRecipe(crop=0.5, randaugment=2)
    bgr = msgspec.structs.replace(RGB, channel_order="BGR")
    one, other = (augmented_pixels(photo(), preprocess, recipe, np.random.default_rng(1)) for preprocess in (RGB, bgr))
    np.testing.assert_array_equal(one[..., ::-1], other)


def test_a_crop_keeps_at_least_the_share_that_it_should():
    # Each column has its own grey: the columns that are seen tell how wide the crop was.
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (256, 1)))
    shares = []
    for seed in range(200):
        pixels = np.asarray(random_crop(ramp, GREY, 0.25, np.random.default_rng(seed)))
        shares.append((int(pixels.max()) - int(pixels.min())) / 255)
    assert min(shares) > 0.4  # sqrt(0.25 * 3 / 4), less what scaling blurs
    assert max(shares) > 0.9


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_keep_size_and_mode_and_grow_with_their_strength(operation, mode):
    # A smooth picture with room at both ends, so that each operation has something to do.
    x, y = np.meshgrid(np.linspace(40, 200, 32), np.linspace(0, 20, 24))
    image = Image.fromarray(np.stack([x + y, x, y + 90], axis=-1).astype(np.uint8)).convert(mode)

    def change(strength):
        changed = operation(image, strength)
        assert (changed.size, changed.mode) == (image.size, mode)
        return np.abs(np.asarray(changed, dtype=float) - np.asarray(image)).mean()

    assert change(0.9) >= change(0.3) * 0.99


def test_operations_are_drawn_from_all_and_none_leaves_the_image():
    image = photo()
    assert randaugment(image, 0, 9, np.random.default_rng(0)) is image
    seen = {randaugment(image, 1, 9, np.random.default_rng(seed)).tobytes() for seed in range(200)}
    assert len(seen) > len(OPERATIONS)
