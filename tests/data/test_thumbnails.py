"""Thumbnails are small, and hold pixels alone."""

import io

import numpy as np
import pytest
from PIL import Image

from edgevit.data.thumbnails import MOST_BYTES, SIDE, is_thumbnail, thumbnail


def photo(size=(640, 480), mode="RGB"):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


@pytest.mark.parametrize(("size", "mode"), [((640, 480), "RGB"), ((9, 2000), "L"), ((1, 1), "RGB"), ((28, 28), "L")])
def test_a_thumbnail_is_a_small_jpeg(size, mode):
    content = thumbnail(photo(size, mode))
    with Image.open(io.BytesIO(content)) as found:
        assert (found.format, found.mode) == ("JPEG", "RGB")
        assert max(found.size) <= SIDE
    assert len(content) <= MOST_BYTES
    assert is_thumbnail(content)


def test_exif_and_profiles_stay_behind():
    image = photo()
    exif = image.getexif()
    exif[0x010E] = "my garden, 52.1 N 4.3 E"
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif, comment=b"secret", icc_profile=b"x" * 200)
    with Image.open(stream) as opened:
        assert opened.getexif()[0x010E].startswith("my garden")
        content = thumbnail(opened)
    with Image.open(io.BytesIO(content)) as found:
        assert not found.getexif()
        assert set(found.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert b"garden" not in content
    assert b"secret" not in content


def test_nothing_else_is_taken_for_one():
    content = thumbnail(photo())
    large = io.BytesIO()
    photo((SIDE + 1, 4)).save(large, "JPEG")
    for other in (b"", b"<svg onload=alert(1)>", content[:200], content + b"x" * MOST_BYTES, large.getvalue()):
        assert not is_thumbnail(other)
