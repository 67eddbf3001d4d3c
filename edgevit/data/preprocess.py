"""From an image to a model's input: the one implementation, for training, calibration, validation and the runtime."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevit.data.images import MAX_PIXELS, decode
from edgevit.errors import DataError, ImageError

Interpolation = Literal["bicubic", "bilinear"]
ChannelOrder = Literal["RGB", "BGR", "L"]

#: Pixels of an edge: this comes from files that may be hostile, and must not fill the memory.
_LARGEST = 8192

_MAX_EDGE = 8192  # of the input, in pixels; far above any model's, and no danger to memory

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Preprocess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model wants done to an image.

    The short edge is resized to ``resize`` pixels (Pillow's antialiased filters) and the centre ``size`` (height,
    width) is cut out; with ``resize`` None the image is squashed to ``size`` as a whole. Then pixels are divided by
    255, and ``mean`` and ``std`` (one value per channel, in 0..1) are taken off and divided by.

    Raises:
        DataError: if the values contradict each other.

    """

    size: tuple[int, int]
    resize: int | None
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: ChannelOrder = "RGB"

    def __post_init__(self) -> None:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise DataError(
                f"{self.channel_order} images need {self.channels} means and deviations, "
                f"not {len(self.mean)} and {len(self.std)}",
                remedy="give one mean and one std for each channel",
            )
        if min(self.size) < 1 or (self.resize is not None and self.resize < max(self.size)):
            raise DataError(
                f"a crop of {self.size[0]}x{self.size[1]} does not fit an image resized to {self.resize}",
                remedy=f"use resize {max(*self.size, 1)} or more",
            )
        if max(*self.size, self.resize or 0) > _LARGEST:
            raise DataError(
                f"images of {max(*self.size, self.resize or 0)} pixels are too large",
                remedy=f"use a size and resize of at most {_LARGEST}",
            )
        if max(*self.size, self.resize or 0) > _MAX_EDGE:
            raise DataError(
                f"images of {self.size[0]}x{self.size[1]} from a short edge of {self.resize} are too large",
                remedy=f"use edges of at most {_MAX_EDGE} pixels",
            )
        if not all(0 < deviation < math.inf for deviation in self.std) or not all(map(math.isfinite, self.mean)):
            raise DataError(
                f"mean is {self.mean} and std is {self.std}",
                remedy="give a finite mean and a std above 0 for each channel",
            )

    @property
    def channels(self) -> int:
        """Number of channels of the input."""
        return 1 if self.channel_order == "L" else 3

    def geometry(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels (H, W, C) that the model sees, resized and cropped, before normalisation.

        Raises:
            ImageError: if the image cannot be decoded, or is so narrow that resizing it would fill the memory.

        """
        image = decode(image).convert("L" if self.channel_order == "L" else "RGB")
        height, width = self.size
        resampling = _FILTERS[self.interpolation]
        if self.resize is None:
            image = image.resize((width, height), resampling)
        else:
            short = min(image.size)
            # As torchvision and timm: the long edge is cut down, not rounded, to whole pixels.
            resized = tuple(self.resize if edge == short else int(self.resize * edge / short) for edge in image.size)
            if resized[0] * resized[1] > MAX_PIXELS:
                raise ImageError(
                    f"an image of {image.width}x{image.height} pixels is too narrow to be resized to {self.resize}",
                    remedy="cut a part of it out, or leave it out",
                )
            image = image.resize((resized[0], resized[1]), resampling)
            left = round((image.width - width) / 2)
            top = round((image.height - height) / 2)
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image, dtype=np.uint8).reshape(height, width, self.channels)
        return pixels[..., ::-1] if self.channel_order == "BGR" else pixels

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn pixels (..., H, W, C) into the model's input (..., C, H, W)."""
        scale = 1 / (255 * np.asarray(self.std, dtype=np.float64))
        shift = np.asarray(self.mean, dtype=np.float64) / np.asarray(self.std, dtype=np.float64)
        # Planes first, then in place: several times faster than arithmetic along a last axis of 3.
        values: NDArray[np.float32] = np.moveaxis(pixels, -1, -3).astype(np.float32, order="C")
        values *= scale.astype(np.float32)[:, None, None]
        values -= shift.astype(np.float32)[:, None, None]
        return values

    def pixels(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Turn a model's input (..., C, H, W) back into the pixels (..., H, W, C) that ``normalize`` made it of."""
        scale = 255 * np.asarray(self.std, dtype=np.float64)
        shift = 255 * np.asarray(self.mean, dtype=np.float64)
        levels = values * scale.astype(np.float32)[:, None, None]
        levels += shift.astype(np.float32)[:, None, None]
        np.rint(levels, out=levels)
        np.clip(levels, 0, 255, out=levels)
        return np.ascontiguousarray(np.moveaxis(levels.astype(np.uint8), -3, -1))

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the model's input (C, H, W) for one image."""
        return self.normalize(self.geometry(image))
