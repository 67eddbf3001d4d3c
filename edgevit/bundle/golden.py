"""The golden images: a few real ones with float32's logits, by which a device checks what it loaded."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevit.data.images import ImageSource, decode_image
from edgevit.errors import BundleError

#: The folder of a bundle that has them, and the last file in it.
GOLDEN, _LOGITS = "golden", "logits.npy"


class Golden(msgspec.Struct, frozen=True, eq=False):
    """Real images, and the logits (images, classes) that the float32 model gives for them."""

    images: tuple[Image.Image, ...]
    logits: NDArray[np.float32]


def write_golden(
    folder: Path, images: Sequence[ImageSource], logits: NDArray[np.float32], *, classes: int
) -> list[Path]:
    """Write the images as PNG and their logits (images, classes) to ``folder``; return the files, the logits last.

    Raises:
        BundleError: if there are no images, or the logits are not theirs, or are not finite numbers.
        ImageError: if an image cannot be read.

    """
    expected = (len(images), classes)
    if not images or logits.shape != expected or logits.dtype != np.float32 or not np.isfinite(logits).all():
        raise BundleError(
            f"{len(images)} golden images cannot go with {logits.dtype} logits {logits.shape}",
            remedy=f"give at least one image, and finite float32 logits of shape {expected}",
        )
    paths = []
    for number, image in enumerate(images):
        paths.append(folder / f"{number:02}.png")
        pixels = Image.fromarray(np.asarray(decode_image(image)))  # the pixels alone, without what cameras add to them
        pixels.save(paths[-1], format="PNG", optimize=True)
    np.save(folder / _LOGITS, np.ascontiguousarray(logits), allow_pickle=False)
    return [*paths, folder / _LOGITS]


def read_golden(files: Sequence[Path | memoryview], *, classes: int) -> Golden:
    """Return what ``write_golden`` wrote; ``files`` are paths, or what is in those of a pack.

    Raises:
        BundleError: if the logits are damaged, or there are none.
        ImageError: if an image is damaged.

    """
    if not files:
        raise BundleError("the bundle has no golden images", remedy="make it again with 'edgevit export'")
    *images, logits = files
    decoded = tuple(decode_image(image if isinstance(image, Path) else bytes(image)) for image in images)
    shape = (len(images), classes)
    if isinstance(logits, Path):
        with logits.open("rb") as stream:
            return Golden(decoded, _read_logits(stream, shape, str(logits)))
    return Golden(decoded, _read_logits(BytesIO(logits), shape, f"{GOLDEN}/{_LOGITS}"))


def _read_logits(stream: BinaryIO, shape: tuple[int, int], name: str) -> NDArray[np.float32]:
    # np.load parses the header as Python and believes it; there is only one header that it may be.
    expected = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    size = 4 * shape[0] * shape[1]
    magic = stream.read(8)
    header = stream.read(int.from_bytes(stream.read(2), "little"))
    content = stream.read(size + 1)
    if magic != b"\x93NUMPY\x01\x00" or header.rstrip() != expected or len(content) != size:
        raise BundleError(
            f"{name} is damaged: these are not {shape[0]} x {shape[1]} float32 values",
            remedy="make the bundle again with 'edgevit export'",
        )
    return np.frombuffer(content, dtype="<f4").reshape(shape).astype(np.float32)
