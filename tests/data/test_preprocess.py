"""Preprocessing against torch's antialiased resize and the conventions of torchvision and timm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError, ImageError

IMAGENET = Preprocess(size=(224, 224), resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def reference(pixels, resize, crop, mode):
    """Return what torchvision's Resize(resize), CenterCrop(crop) give, by torch's own resampling kernel."""
    import torch

    height, width = pixels.shape[:2]
    short, long = min(height, width), max(height, width)
    new_long = int(resize * long / short)
    new_height, new_width = (resize, new_long) if height <= width else (new_long, resize)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    planes = torch.nn.functional.interpolate(planes, (new_height, new_width), mode=mode, antialias=True)
    top, left = int(round((new_height - crop) / 2.0)), int(round((new_width - crop) / 2.0))  # noqa: RUF046
    planes = planes[0, :, top : top + crop, left : left + crop]
    return planes.permute(1, 2, 0).clamp(0, 255).numpy()


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(333, 500), (500, 375), (224, 224), (100, 133), (257, 300), (64, 31)])
def test_agrees_with_torch_and_torchvisions_rounding(size, mode):
    # Away from 0 and 255, where Pillow clips bicubic's overshoot after its first pass and torch does not.
    pixels = np.random.default_rng(1).integers(70, 186, (*size, 3), dtype=np.uint8)
    preprocess = Preprocess(size=(48, 48), resize=55, mean=(0, 0, 0), std=(1, 1, 1), interpolation=mode)
    difference = np.abs(preprocess.geometry(Image.fromarray(pixels)) - reference(pixels, 55, 48, mode))
    # Pillow rounds to 8 bits after each of its two passes; one pixel's shift of this noise gives a mean above 2.
    assert difference.max() <= 1.5
    assert difference.mean() < 0.4


@pytest.mark.parametrize(("size", "box"), [((500, 333), (80, 16)), ((375, 500), (16, 58)), ((500, 499), (16, 16))])
def test_where_timm_cuts_256_to_224(size, box):
    # 375x500 -> 256x341; (341 - 224) / 2 = 58.5, which torchvision rounds to the even 58.
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    long = int(256 * max(size) / min(size))
    resized = image.resize((long, 256) if size[0] > size[1] else (256, long), Image.Resampling.BICUBIC)
    wanted = np.asarray(resized)[box[1] : box[1] + 224, box[0] : box[0] + 224]
    assert np.array_equal(IMAGENET.geometry(image), wanted)


sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


@given(sizes, sizes, st.sampled_from(["RGB", "BGR", "L"]), st.sampled_from(["bicubic", "bilinear"]), st.data())
def test_shape_type_and_range(given_size, size, order, interpolation, data):
    resize = data.draw(st.one_of(st.none(), st.integers(max(size), 120)))
    mode = data.draw(st.sampled_from(["L", "RGB"]))
    channels = 1 if order == "L" else 3
    preprocess = Preprocess(
        size=size,
        resize=resize,
        interpolation=interpolation,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        channel_order=order,
    )
    values = preprocess(Image.effect_noise(given_size, 90).convert(mode))
    assert values.shape == (channels, *size)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    assert -2 <= values.min() <= values.max() <= 2


@given(
    arrays.arrays(np.uint8, (2, 3, 4, 3)),
    st.tuples(*[st.floats(0, 1)] * 3),
    st.tuples(*[st.floats(0.01, 1)] * 3),
)
def test_normalize_can_be_undone(pixels, mean, std):
    preprocess = Preprocess(size=(3, 4), resize=None, mean=mean, std=std)
    values = np.moveaxis(preprocess.normalize(pixels), -3, -1)
    wanted = (pixels / 255 - mean) / std
    assert np.abs(values - wanted).max() < 1e-4 / min(std)
    assert np.array_equal(np.rint((values * std + mean) * 255).astype(np.uint8), pixels)


def test_batches_and_single_images_normalise_alike():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)
    assert np.array_equal(IMAGENET.normalize(pixels)[3], IMAGENET.normalize(pixels[3]))


def test_bgr_swaps_channels():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    rgb = Preprocess(size=(8, 8), resize=None, mean=(0, 0, 0), std=(1, 1, 1))
    bgr = Preprocess(size=(8, 8), resize=None, mean=(0, 0, 0), std=(1, 1, 1), channel_order="BGR")
    assert np.array_equal(rgb(image)[::-1], bgr(image))


def test_same_size_changes_no_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    grey = Preprocess(size=(28, 28), resize=28, mean=(0,), std=(1,), channel_order="L")
    assert np.array_equal(grey.geometry(Image.fromarray(pixels))[..., 0], pixels)


def test_undecoded_images_are_decoded():
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    grey = Preprocess(size=(8, 8), resize=None, mean=(0,), std=(1,), channel_order="L")
    assert np.array_equal(grey.geometry(Image.fromarray(values))[..., 0], np.rint(values / 257))


def test_narrow_image_does_not_fill_the_memory():
    with pytest.raises(ImageError, match="too narrow"):
        IMAGENET(Image.new("L", (1, 1_000_000)))


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": (0.5,)},
        {"std": (1.0, 1.0)},
        {"std": (1.0, 0.0, 1.0)},
        {"std": (1.0, float("nan"), 1.0)},
        {"mean": (0.5, float("inf"), 0.5)},
        {"resize": 223},
        {"size": (0, 224)},
        {"size": (1_000_000, 1_000_000), "resize": None},
        {"resize": 1_000_000},
    ],
)
def test_contradictions_are_refused(changes):
    values = {"size": (224, 224), "resize": 256, "mean": IMAGENET.mean, "std": IMAGENET.std}
    with pytest.raises(DataError) as caught:
        Preprocess(**{**values, **changes})
    assert caught.value.remedy


@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.lists(st.floats(0.01, 3), min_size=3, max_size=3),
    arrays.arrays(np.uint8, (2, 5, 4, 3)),
)
def test_pixels_are_found_again(mean, std, pixels):
    preprocess = Preprocess(size=(5, 4), resize=None, mean=tuple(mean), std=tuple(std))
    found = preprocess.pixels(preprocess.normalize(pixels))
    np.testing.assert_array_equal(found, pixels)
    assert found.flags.c_contiguous


def test_values_that_no_pixel_has_become_the_nearest():
    preprocess = Preprocess(size=(1, 3), resize=None, mean=(0.5,), std=(0.5,), channel_order="L")
    values = np.array([[[-9, 0.001, 9]]], dtype=np.float32)
    assert preprocess.pixels(values).tolist() == [[[0], [128], [255]]]
