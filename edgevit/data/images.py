"""From a file, bytes, array or Pillow image to 8-bit grey or RGB pixels; images are hostile until decoded."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgevit.data.formats import HEAD, conversion_hint, format_of, named_as, what_it_is
from edgevit.errors import ImageError

MAX_BYTES = 64 << 20
"""Largest file, in bytes, that is read."""

MAX_PIXELS = 80_000_000
"""Largest image, in pixels, that is decoded (240 MB as RGB); below the size from which Pillow suspects a bomb."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""Raster formats that are read, by Pillow's names; its others have no place in front of a camera."""

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip
"""How the names of files in these formats end, in lower case."""

Channels = Literal["rgb", "bgr"]
"""Orders in which an array's channels may come."""

ImageSource = Path | str | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[np.uint8]

# What Pillow's decoders raise on damaged files (found by fuzzing them; see tests/data/test_images.py).
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, RuntimeError,
    MemoryError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip

_ORIENTATION = 0x0112
_NEW_SUBFILE_TYPE = 0x00FE
_DNG_VERSION = 0xC612
_BITS_PER_SAMPLE = 0x0102
_PHOTOMETRIC = 0x0106
_WHITE_IS_ZERO = 0
_SIXTEEN = 16
_TWELVE_BITS = 0x0FFF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_warnings_lock = threading.RLock()  # Python's warning filters belong to the whole process
# Else a process that is forked while another thread decodes would wait for that thread, which it does not have.
os.register_at_fork(
    before=_warnings_lock.acquire, after_in_parent=_warnings_lock.release, after_in_child=_warnings_lock.release
)


def decode_image(source: ImageSource) -> Image.Image:
    """Return ``source`` as an upright 8-bit image in mode "L" (if it is grey) or "RGB".

    ``source`` is a path, the bytes of a file, a binary stream, a Pillow image, or a uint8 array (H, W) or (H, W, C)
    with C 1, 3 or 4, in the order R, G, B. EXIF orientation is applied, grey of 12 and 16 bits is scaled to 8,
    transparency is dropped as Pillow's ``convert("RGB")`` does, and of an animation the first frame is taken.

    Raises:
        ImageError: if it is missing, damaged, cut short, in none of ``FORMATS``, of a type that has no 8-bit
            meaning, or larger than ``MAX_BYTES`` or ``MAX_PIXELS``.

    """
    if isinstance(source, Image.Image):
        return _finish(source, "the image")
    if isinstance(source, np.ndarray):
        return _finish(_from_array(source), "the array")
    if isinstance(source, (str, os.PathLike)):
        return _from_file(os.fsdecode(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_stream(io.BytesIO(source), len(source), "the image")
    if not callable(getattr(source, "read", None)):
        if isinstance(source, (list, tuple)):
            raise ImageError(
                f"a {type(source).__name__} is not an image", remedy="give one; predict_batch of a model takes several"
            )
        raise ImageError(
            f"a {type(source).__module__}.{type(source).__qualname__} is not an image",
            remedy="give a path, the bytes of a file, a Pillow image, or a uint8 array (height, width, 3); "
            "of a tensor, its .numpy() in that order",
        )
    name = str(getattr(source, "name", "the image"))
    content = _read(source, name)
    return _from_stream(io.BytesIO(content), len(content), name)


def pixels_of(content: bytes) -> int:
    """Return how many pixels an image file says it has, without decoding it; 0 where ``decode_image`` says why not.

    Raises:
        ImageError: if they are so many that Pillow does not open it.

    """
    try:
        with _strict_about_bombs(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("the image") from error
    except (UnidentifiedImageError, *_DECODER_ERRORS):
        return 0


def _read(stream: BinaryIO, name: str) -> bytes:
    try:
        content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError, TypeError) as error:  # closed, for writing only, or of text
        raise ImageError(
            f"cannot read {name}: {error}", remedy="open it for reading, as bytes: open(..., 'rb')"
        ) from error
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise ImageError(
            f"what {name} gives when it is read is {type(content).__name__}, not bytes",
            remedy="open it as bytes: open(..., 'rb')",
        )
    return bytes(content)


def _from_array(array: NDArray[Any]) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ImageError(
            f"an array of type {array.dtype} and shape {array.shape} is not an image",
            remedy="give uint8 values from 0 to 255 with shape (height, width) or (height, width, 3)",
        )
    if array.size == 0:
        raise ImageError(f"an array of shape {array.shape} has no pixels", remedy="give an image with pixels")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and channels == 1 else array)


def _from_file(name: str) -> Image.Image:
    if not name:  # would be the current folder
        raise ImageError("the path of an image is empty", remedy="give the path of an image file")
    path = Path(name)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not a file" if path.exists() else "does not exist"
            raise ImageError(f"{path} {what}", remedy="give the path of an image file")
        with path.open("rb") as stream:
            return _from_stream(stream, os.fstat(stream.fileno()).st_size, str(path))
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}", remedy=f"make {path} readable") from error


def _from_stream(stream: BinaryIO, size: int, name: str) -> Image.Image:
    if size > MAX_BYTES:
        raise ImageError(
            f"{name} has more than {MAX_BYTES >> 20} MiB", remedy="save the image smaller, for example as a JPEG"
        )
    head = stream.read(HEAD)
    stream.seek(0)
    try:
        with _strict_about_bombs():
            image = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _not_read(head, name) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except _DECODER_ERRORS as error:
        raise _damaged(name, error) from error
    with image:
        if image.format == "TIFF" and (named_as(Path(name)) == "raw" or _is_raw(image)):
            raise _unread("raw", name)
        return _finish(image, name)


def _is_raw(image: Image.Image) -> bool:
    """Tell whether the first page is the preview that a camera puts before its raw pixels (in DNG, NEF and others)."""
    tags = getattr(image, "tag_v2", {})
    preview = tags.get(_NEW_SUBFILE_TYPE, 0)
    return _DNG_VERSION in tags or (isinstance(preview, int) and bool(preview & 1))


def _not_read(head: bytes, name: str) -> ImageError:
    if (found := format_of(head, Path(name))) is not None:
        return _unread(found, name)
    return ImageError(
        f"{name} {what_it_is(head) or 'is not an image, or is damaged at its very beginning'}",
        remedy=f"remove it, or save it again as one of {', '.join(FORMATS)}",
    )


def _unread(found: str, name: str) -> ImageError:
    return ImageError(f"{name} is {found}, which EdgeViT does not read", remedy=conversion_hint(found, name))


def _finish(image: Image.Image, name: str) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name)
    if min(image.size) < 1:
        raise ImageError(f"{name} has no pixels ({image.width}x{image.height})", remedy="remove it")
    deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))  # loading empties it
    try:
        # Pillow reads the metadata of TIFF files, and warns of it, only while it loads them.
        with _strict_about_bombs() if image.format == "TIFF" else nullcontext():
            image.load()
        with _strict_about_bombs():
            orientation = image.getexif().get(_ORIENTATION)
        pixels = _eight_bits(image, name)
    except _DECODER_ERRORS as error:
        raise _damaged(name, error) from error
    if deep and image.mode != "L" and 0 < (most := int(np.asarray(pixels).max())) <= _TWELVE_BITS >> 8:
        raise _black(name, f"values up to about {most << 8}")
    if orientation in _UPRIGHT:
        pixels = pixels.transpose(_UPRIGHT[orientation])
        pixels.info = {}  # the new image stands upright and must not be turned again
    return pixels


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_integers(np.asarray(image), image, name)
    if image.mode in ("1", "LA", "La"):
        return (image.convert("LA") if image.mode == "La" else image).convert("L")
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels", remedy="save it with 8 or 16 bits per channel")
    if image.mode in ("P", "PA"):
        # Pillow warns that a palette's transparency gets lost in RGB, which is what we want.
        image = image.copy()
        image.info.pop("transparency", None)
    return image.convert("RGB")


def _from_integers(values: NDArray[Any], image: Image.Image, name: str) -> Image.Image:
    """Scale grey values of up to 16 bits to 8; refuse those whose white is not known, which would come out black."""
    bits = _bits_of(image)
    white = (1 << bits) - 1
    least, most = int(values.min()), int(values.max())
    if bits > _SIXTEEN or least < 0 or most > white:
        raise ImageError(
            f"{name} has grey values from {least} to {most}"
            + (f" of {bits} bits" if bits > _SIXTEEN else f", outside of {bits} bits"),
            remedy="save it with 8 or 16 bits per channel",
        )
    if bits == _SIXTEEN and 0 < most <= _TWELVE_BITS:
        raise _black(name, f"grey values from {least} to {most}")
    if (getattr(image, "tag_v2", None) or {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # which Pillow heeds in 8 bits alone
        values = white - values.astype(np.int64)
    grey = Image.fromarray(((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8))
    grey.info = dict(image.info)
    return grey


def _bits_of(image: Image.Image) -> int:
    """Return how many bits white has; Pillow gives a TIFF file's 12 bits, and its 32, as they are stored."""
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    bits = (tags or {}).get(_BITS_PER_SAMPLE, _SIXTEEN)
    bits = bits[0] if isinstance(bits, tuple) and bits else bits
    return bits if isinstance(bits, int) and bits > 0 else _SIXTEEN


def from_bgr(image: ImageSource) -> NDArray[np.uint8]:
    """Return a camera frame whose channels are B, G, R (and alpha) as an array of R, G, B.

    Raises:
        ImageError: if it is no array of 3 or 4 channels.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] not in (3, 4):
        what = f"an array of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(
            f"channels='bgr' is for arrays of shape (height, width, 3), not for {what}",
            remedy="leave channels out: files and Pillow images know their own order",
        )
    return image[..., [2, 1, 0]]


@contextmanager
def _strict_about_bombs() -> Iterator[None]:
    """Make Pillow's suspicion of a bomb an error, and keep its remarks on odd metadata from the user's screen."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _black(name: str, levels: str) -> ImageError:
    return ImageError(
        f"{name} has {levels} in 16 bits, which would be black: they may be of 12 bits or less",
        remedy="scale them so that white is 65535, or save it with 8 bits per channel",
    )


def _too_large(name: str) -> ImageError:
    return ImageError(
        f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels", remedy="save the image smaller, or remove it"
    )


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(f"{name} is damaged or cut short: {error}", remedy="copy it again from its source, or remove it")
