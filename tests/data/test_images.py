"""Every kind of image that people have, and every way in which one can be bad."""

import contextlib
import io
import os
import random
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, TiffImagePlugin

from edgevit.data import images
from edgevit.data.images import decode_image, from_bgr
from edgevit.errors import ImageError

pytestmark = pytest.mark.usefixtures("all_cores")

ORIENTATION = 0x0112


def noise(height=24, width=31, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


PHOTO = Image.fromarray(noise()).resize((62, 48), Image.Resampling.BICUBIC)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_keep_every_pixel(kind):
    image = decode_image(encoded(PHOTO, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(PHOTO))


def test_sources_are_equal(tmp_path):
    content = encoded(PHOTO, "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with path.open("rb") as stream:
        results = [decode_image(source) for source in (path, str(path), content, stream, PHOTO, np.asarray(PHOTO))]
    assert all(np.array_equal(np.asarray(image), np.asarray(PHOTO)) for image in results)


@pytest.mark.parametrize("shape", [(24, 31), (24, 31, 1), (24, 31, 3), (24, 31, 4)])
def test_arrays(shape):
    array = noise(channels=4)[..., : shape[2]] if len(shape) == 3 else noise()[..., 0]
    image = decode_image(array)
    assert image.mode == ("L" if len(shape) == 2 or shape[2] == 1 else "RGB")
    wanted = array[..., :3] if image.mode == "RGB" else array.reshape(24, 31)
    assert np.array_equal(np.asarray(image), wanted)


@pytest.mark.parametrize(
    "array",
    [
        noise().astype(np.float32),
        noise().astype(np.int64),
        np.moveaxis(noise(), -1, 0),
        np.zeros((2, 3, 4, 3), np.uint8),
        np.zeros(7, np.uint8),
        np.zeros((0, 5, 3), np.uint8),
    ],
    ids=["float", "int64", "channels-first", "batch", "flat", "empty"],
)
def test_arrays_that_are_no_images(array):
    with pytest.raises(ImageError, match="shape"):
        decode_image(array)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_few_bits(bits):
    paletted = PHOTO.quantize(2**bits)
    image = decode_image(encoded(paletted, "PNG", bits=bits))
    assert np.array_equal(np.asarray(image), np.asarray(paletted.convert("RGB")))


def test_one_bit_grey():
    image = decode_image(encoded(PHOTO.convert("1"), "PNG"))
    assert image.mode == "L"
    assert set(np.unique(np.asarray(image)).tolist()) == {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    values = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    image = decode_image(encoded(Image.fromarray(values), kind))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), np.rint(values / 257).astype(np.uint8))


def test_big_endian_sixteen_bit_grey():
    values = (np.arange(600).reshape(20, 30) * 100).astype(">u2")
    stored = Image.frombytes("I;16B", (30, 20), values.tobytes())
    assert np.array_equal(np.asarray(decode_image(stored)), np.rint(values / 257).astype(np.uint8))


def test_grey_beyond_sixteen_bits_and_floats_are_refused():
    with pytest.raises(ImageError, match="of 32 bits"):
        decode_image(encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"))
    with pytest.raises(ImageError, match="floating-point"):
        decode_image(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


def test_twelve_bits_in_a_tiff_are_scaled_by_its_tag():
    values = np.linspace(0, 4095, 600).astype(np.uint16).reshape(20, 30)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    stored = Image.open(io.BytesIO(encoded(Image.fromarray(values), "TIFF", tiffinfo=tags)))
    stored.tag_v2[258] = 12
    found = np.asarray(decode_image(stored))
    assert np.abs(found - values / 4095 * 255).max() <= 0.5


@pytest.mark.parametrize("most", [1, 255, 1023, 4095])
@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_grey_that_would_be_black_is_refused(most, kind):
    values = np.linspace(0, most, 600).astype(kind).reshape(20, 30)
    with pytest.raises(ImageError, match=f"from 0 to {most} in 16 bits, which would be black"):
        decode_image(Image.fromarray(values))
    assert not np.asarray(decode_image(Image.fromarray(values * 0))).any()


def deep_png(values, colour):
    """Return a PNG of 16 bits a channel, which Pillow cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "grey with alpha", "RGBA"])
def test_colour_of_sixteen_bits_that_would_be_black_is_refused(colour, channels):
    values = np.random.default_rng(0).integers(0, 1 << 16, (6, 7, channels))
    found = np.asarray(decode_image(deep_png(values, colour)))
    grey = values[..., :1] if channels == 2 else values[..., :3]
    assert np.abs(found - grey / 257).max() <= 1
    assert not np.asarray(decode_image(deep_png(values * 0, colour))).any()
    with pytest.raises(ImageError, match="which would be black"):
        decode_image(deep_png(values >> 4, colour))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_white_is_zero(bits):
    values = np.linspace(0, 2**bits - 1, 600).astype(f"uint{bits}").reshape(20, 30)
    content = encoded(Image.fromarray(values), "TIFF")
    black_is_zero = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert black_is_zero in content
    found = np.asarray(decode_image(content.replace(black_is_zero, struct.pack("<HHIHH", 262, 3, 1, 0, 0))))
    assert np.abs(found - (255 - values / (257 if bits == 16 else 1))).max() <= 0.5


def test_alpha_that_is_multiplied_in_already():
    assert decode_image(PHOTO.convert("L").convert("LA").convert("La")).mode == "L"


def test_streams_that_give_no_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(PHOTO, "PNG"))
    closed = (tmp_path / "a.png").open("rb")
    closed.close()
    for stream in (closed, io.StringIO("a.png"), (tmp_path / "b").open("wb")):
        with contextlib.closing(stream), pytest.raises(ImageError) as caught:
            decode_image(stream)
        assert "'rb'" in caught.value.remedy


def test_paths_of_any_kind(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(PHOTO, "PNG"))
    with os.scandir(tmp_path) as entries:
        assert [decode_image(entry).size for entry in entries] == [PHOTO.size]
    with pytest.raises(ImageError, match="too long"):
        decode_image("a" * 5000)


def test_frames_of_cameras():
    frame = np.random.default_rng(0).integers(0, 256, (4, 5, 4), dtype=np.uint8)
    assert np.array_equal(from_bgr(frame[..., :3]), frame[..., [2, 1, 0]])
    assert np.array_equal(from_bgr(frame), frame[..., [2, 1, 0]])
    for other in (PHOTO, frame[..., 0], b"", "a.png"):
        with pytest.raises(ImageError, match="channels='bgr' is for arrays"):
            from_bgr(other)


def test_cmyk_jpeg():
    content = encoded(PHOTO.convert("CMYK"), "JPEG", quality=95)
    image = decode_image(content)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert np.abs(np.asarray(image, int) - np.asarray(PHOTO, int)).mean() < 8  # not inverted


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P with bytes", "P with index"])
def test_transparency_is_dropped_as_convert_does(mode):
    if mode.startswith("P"):
        stored = PHOTO.quantize(16)
        content = encoded(stored, "PNG", transparency=bytes(range(16)) if "bytes" in mode else 3)
        wanted = stored.convert("RGB")
    else:
        stored = Image.fromarray(noise(channels=4)).convert(mode)
        content = encoded(stored, "PNG")
        wanted = stored.convert("RGB" if mode == "RGBA" else "L")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(np.asarray(decode_image(content)), np.asarray(wanted))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame(kind):
    first, second = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (20, 10), "blue")
    image = decode_image(encoded(first, kind, save_all=True, append_images=[second]))
    assert np.abs(np.asarray(image, int) - [255, 0, 0]).max() < 4
    assert decode_image(image.resize((5, 5))).size == (5, 5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(kind, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(PHOTO, kind, exif=exif)
    image = decode_image(content)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert np.array_equal(np.asarray(image), wanted)
    assert np.array_equal(np.asarray(decode_image(image)), wanted)
    assert np.array_equal(np.asarray(decode_image(Image.open(io.BytesIO(content)))), wanted)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP"])
def test_truncated_file_is_named_with_a_remedy(tmp_path, kind):
    path = tmp_path / "half.img"
    content = encoded(PHOTO, kind)
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ImageError, match=r"half\.img") as caught:
        decode_image(path)
    assert "again from its source" in caught.value.remedy


@pytest.mark.parametrize("content", [b"P", b"not an image at all", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image(content):
    with pytest.raises(ImageError, match="not an image"):
        decode_image(content)


def test_only_raster_formats_of_the_list_are_opened():
    with pytest.raises(ImageError, match="is ICO, which EdgeViT does not read"):
        decode_image(encoded(PHOTO, "ICO"))


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait forever
    for name, what in (("nothing", "does not exist"), (".", "is a folder"), ("pipe", "is not a file")):
        with pytest.raises(ImageError, match=what):
            decode_image(tmp_path / name)


def test_files_are_bounded_in_bytes(monkeypatch, tmp_path):
    content = encoded(PHOTO, "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    monkeypatch.setattr(images, "MAX_BYTES", len(content))
    decode_image(path)
    monkeypatch.setattr(images, "MAX_BYTES", len(content) - 1)
    for source in (path, content, io.BytesIO(content)):
        with pytest.raises(ImageError, match="MiB"):
            decode_image(source)


@pytest.mark.parametrize("edge", [9_000, 10_000, 20_000], ids=["ours", "Pillow's warning", "Pillow's error"])
def test_decompression_bomb(edge):
    bomb = encoded(Image.new("1", (edge, edge)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(ImageError, match="million pixels"):
        decode_image(bomb)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError, match="million pixels"):
            decode_image(bomb)


def test_threads_leave_the_warning_filters_as_they_were():
    before = list(warnings.filters)
    content = encoded(PHOTO, "TIFF")
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(decode_image, [content] * 200))
    assert warnings.filters == before


SEEDS = [
    encoded(PHOTO, "JPEG"),
    encoded(PHOTO, "JPEG", progressive=True),
    encoded(PHOTO.quantize(16), "PNG", bits=4),
    encoded(PHOTO, "WEBP"),
    encoded(PHOTO, "BMP"),
    encoded(PHOTO, "TIFF", compression="packbits"),
    encoded(PHOTO, "TIFF"),
    encoded(PHOTO.quantize(8), "GIF"),
    encoded(PHOTO, "PPM"),
]


@given(st.sampled_from(SEEDS), st.integers(0, 2**32))
def test_damage_ends_in_an_image_or_an_image_error(content, seed):
    damaged = bytearray(content)
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 2, 8))):
        damaged[chance.randrange(chance.choice((min(40, len(damaged)), len(damaged))))] = chance.randrange(256)
    if chance.random() < 0.3:
        del damaged[chance.randrange(1, len(damaged)) :]
    with contextlib.suppress(ImageError):
        assert decode_image(bytes(damaged)).mode in ("L", "RGB")


FORKED = """
import os, signal, sys, threading
from PIL import Image
from edgevit.data import images
inside, leave = threading.Event(), threading.Event()
def decode_slowly():
    with images._strict_about_bombs():
        inside.set()
        leave.wait()
other = threading.Thread(target=decode_slowly)
other.start()
inside.wait()
threading.Timer(0.2, leave.set).start()
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(5)
images.decode_image(sys.argv[1])
os._exit(0)
"""


def test_a_process_that_is_forked_while_another_thread_decodes_can_decode(tmp_path):
    PHOTO.save(tmp_path / "a.png")
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path / "a.png")]
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).parents[2])
