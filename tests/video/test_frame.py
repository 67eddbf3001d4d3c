"""What a model sees of a camera's frame."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from edgevit.data.preprocess import Preprocess
from edgevit.errors import InputError
from edgevit.video.frame import region_seen

EDGES = st.integers(40, 700)


def wants(**given):
    return Preprocess(**({"size": (32, 32), "resize": 36, "mean": (0.5,) * 3, "std": (0.5,) * 3} | given))


def smooth(width, height):
    """Return a picture that looks the same whichever filter resizes it."""
    down, across = np.mgrid[0:height, 0:width]
    planes = [255 * across / width, 255 * down / height, 127 + 120 * np.sin(3 * across / width + 2 * down / height)]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


@given(width=EDGES, height=EDGES, resize=st.one_of(st.none(), st.integers(32, 60)))
def test_the_region_squashed_is_what_the_runtime_sees(width, height, resize):
    preprocess = wants(resize=resize)
    assume(max(width, height) < 6 * min(width, height))
    image = smooth(width, height)
    region = region_seen(preprocess, width, height)
    left, top, across, down = region
    assert min(left, top) >= 0
    assert left + across <= width
    assert top + down <= height
    part = image.crop((left, top, left + across, top + down)).resize((32, 32), Image.Resampling.BICUBIC)
    seen = preprocess.geometry(image).astype(float)
    step = 255 / min(across, down)  # what a pixel to the side makes
    assert np.abs(np.asarray(part) - seen).mean() < 2 + 2 * step


def test_a_full_hd_frame_loses_what_the_crop_leaves_out():
    preprocess = wants(size=(224, 224), resize=256)
    assert region_seen(preprocess, 1920, 1080) == (487, 67, 945, 945)
    assert region_seen(wants(size=(224, 224), resize=None), 1920, 1080) == (0, 0, 1920, 1080)
    squashed = wants(size=(224, 112), resize=None, fit="squash", box=(224, 112))
    assert region_seen(squashed, 1920, 1080) == (0, 0, 1920, 1080)


@pytest.mark.parametrize(
    "preprocess",
    [
        wants(resize=None, fit="contain", box=(32, 32)),
        wants(resize=None, fit="cover", box=(40, 40)),
        wants(resize=None, fit="squash", box=(40, 40)),
        wants(pad="square"),
    ],
)
def test_what_no_crop_does_is_refused(preprocess):
    with pytest.raises(InputError) as error:
        region_seen(preprocess, 640, 480)
    assert "stream" in error.value.remedy


def test_a_frame_has_pixels():
    with pytest.raises(InputError, match="0x480"):
        region_seen(wants(), 0, 480)
