"""From an image to a model's input: the one implementation, for training, calibration, validation and the runtime."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevit.data.images import MAX_PIXELS, decode_image
from edgevit.errors import DataError, ImageError

Interpolation = Literal["bicubic", "bilinear", "nearest", "lanczos", "box", "hamming"]
ChannelOrder = Literal["RGB", "BGR", "L"]
Fit = Literal["short", "squash", "cover", "contain", "none"]
Rounding = Literal["nearest", "down", "half up"]
Pad = Literal["around", "after", "square"]

_MAX_EDGE = 8192  # of the input, in pixels: this comes from files that may be hostile, and must not fill the memory

#: Pillow's filters, all antialiased but nearest.
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


class Preprocess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model wants done to an image.

    The short edge is resized to ``resize`` pixels (Pillow's antialiased filters) and the centre ``size`` (height,
    width) is cut out; with ``resize`` None the image is squashed to ``size`` as a whole. Then pixels are divided by
    255, and ``mean`` and ``std`` (one value per channel, in 0..1) are taken off and divided by.

    Where ``fit`` is not "short", an image is first brought to ``box`` (height, width) instead: "squash" gives it
    these edges, "cover" keeps its ratio and covers the box, "contain" keeps its ratio and stays within the box, and
    "none" (which has no box) leaves it as it is. With "cover" and a square box, ``longest`` is the most that the long
    edge may become; the short one is then shorter than the box. Then, too, the centre ``size`` is cut out; where the
    image is smaller, it is padded with ``fill`` (levels 0..255 of L or R, G, B; black if None). ``rounding`` is to
    whole pixels: "nearest" as torchvision and timm do, "down" as transformers does, "half up" as SAM does.

    ``pad`` says how an image is padded: "around" it, as above; "square" pads it to a square around it first, with
    ``fill``, and all that follows with black; "after" keeps its place, above and at the left of ``size``, and cuts
    nothing off but what is beyond its centre ``crop``, if there is one.

    Raises:
        DataError: if the values contradict each other.

    """

    size: tuple[int, int]
    resize: int | None
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: ChannelOrder = "RGB"
    fit: Fit = "short"
    box: tuple[int, int] | None = None
    fill: tuple[int, ...] | None = None
    rounding: Rounding = "nearest"
    longest: int | None = None
    pad: Pad = "around"
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise DataError(
                f"{self.channel_order} images need {self.channels} means and deviations, "
                f"not {len(self.mean)} and {len(self.std)}",
                remedy="give one mean and one std for each channel",
            )
        if min(self.size) < 1 or (self.fit == "short" and self.resize is not None and self.resize < max(self.size)):
            raise DataError(
                f"a crop of {self.size[0]}x{self.size[1]} does not fit an image resized to {self.resize}",
                remedy=f"use resize {max(*self.size, 1)} or more",
            )
        self._check_box()
        self._check_pad()
        largest = max(*self.size, self.resize or 0, *(self.box or ()), self.longest or 0)
        if largest > _MAX_EDGE:
            raise DataError(
                f"images of {largest} pixels are too large", remedy=f"use edges of at most {_MAX_EDGE} pixels"
            )
        if not all(0 < deviation < math.inf for deviation in self.std) or not all(map(math.isfinite, self.mean)):
            raise DataError(
                f"mean is {self.mean} and std is {self.std}",
                remedy="give a finite mean and a std above 0 for each channel",
            )

    def _check_box(self) -> None:
        boxed = self.fit in ("squash", "cover", "contain")
        if boxed != (self.box is not None) or (self.box is not None and min(self.box) < 1):
            raise DataError(
                f"fit is {self.fit} and box is {self.box}",
                remedy="give squash, cover and contain a box with a height and a width, the others none",
            )
        if self.fit != "short" and self.resize is not None:
            raise DataError(
                f"fit is {self.fit} and resize is {self.resize}", remedy="use resize null where fit is not short"
            )
        covers = self.fit == "cover" and len(set(self.box or ())) == 1
        if self.longest is not None and (self.longest < 1 or not covers):
            raise DataError(
                f"fit is {self.fit}, box is {self.box} and longest is {self.longest}",
                remedy="give longest, above 0, only where an image covers a square box",
            )
        if self.fill is not None and (len(self.fill) != self.channels or not all(0 <= v <= 255 for v in self.fill)):
            raise DataError(
                f"fill is {self.fill}", remedy=f"give {self.channels} levels from 0 to 255, one for each channel"
            )

    def _check_pad(self) -> None:
        if self.pad != "after" and self.crop is None:
            return
        inner = self.crop or (self.box if self.fit == "squash" else None) or (1, 1)
        if self.pad != "after" or self.fit == "short" or min(inner) < 1 or any(
            edge > most for edge, most in zip(inner, self.size, strict=True)
        ):  # fmt: skip
            raise DataError(
                f"fit is {self.fit}, pad is {self.pad}, and {inner[0]}x{inner[1]} is padded to "
                f"{self.size[0]}x{self.size[1]}",
                remedy="use crop with pad after, pad after with a fit that is not short, and pad to what is larger",
            )

    @property
    def channels(self) -> int:
        """Number of channels of the input."""
        return 1 if self.channel_order == "L" else 3

    def geometry(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels (H, W, C) that the model sees, resized and cropped, before normalisation.

        Raises:
            ImageError: if the image cannot be decoded, is so narrow that resizing it would fill the memory, or is
                larger than what it is to be padded to.

        """
        image = decode_image(image).convert("L" if self.channel_order == "L" else "RGB")
        height, width = self.size
        if self.pad == "square":
            image = self._squared(image)
        if self.fit == "short" and self.resize is None:
            image = image.resize((width, height), FILTERS[self.interpolation])
        elif self.pad == "after":
            image = self._padded(self._resized(image))
        else:
            image = self._cut(self._resized(image), self.size, self.fill if self.pad == "around" else None)
        pixels = np.asarray(image, dtype=np.uint8).reshape(height, width, self.channels)
        return pixels[..., ::-1] if self.channel_order == "BGR" else pixels

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.fit == "none":
            return image
        height, width = self._edges(image.height, image.width)
        if not 0 < height * width <= MAX_PIXELS:
            raise _too_narrow(image, f"resized to {self.resize or self.box}")
        return image.resize((width, height), FILTERS[self.interpolation])

    def _edges(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width to which an image is resized before the crop."""
        short, box = min(height, width), self.box
        edge = box[0] if box is not None and self.fit == "cover" and box[0] == box[1] else self.resize
        if edge is not None and self.longest is not None:
            return _capped(height, width, edge, self.longest)
        if edge is not None:
            # As torchvision, timm and transformers: the long edge is cut down, not rounded, to whole pixels.
            high, wide = (edge if side == short else int(edge * side / short) for side in (height, width))
            return high, wide
        assert box is not None  # what __post_init__ sees to  # noqa: S101
        if self.fit == "squash":
            return box
        if self.rounding != "nearest":
            ratios = (box[0] / height, box[1] / width)
            scale = min(ratios) if self.fit == "contain" else max(ratios)
            half = 0.5 if self.rounding == "half up" else 0
            return int(height * scale + half), int(width * scale + half)
        shares = (height / box[0], width / box[1])
        share = max(shares) if self.fit == "contain" else min(shares)
        return round(height / share), round(width / share)

    def _squared(self, image: Image.Image) -> Image.Image:
        """Pad to a square around the image."""
        edge = max(image.size)
        if edge * edge > MAX_PIXELS:
            raise _too_narrow(image, "padded to a square")
        return self._on_canvas(image, (edge, edge), ((edge - image.width) // 2, (edge - image.height) // 2))

    def _padded(self, image: Image.Image) -> Image.Image:
        """Cut the centre out, if asked to, and pad below and at the right."""
        if self.crop is not None:
            image = self._cut(image, self.crop, None)
        if image.height > self.size[0] or image.width > self.size[1]:
            raise ImageError(
                f"an image becomes {image.height}x{image.width} pixels (height x width), more than the "
                f"{self.size[0]}x{self.size[1]} that the model's images are padded to",
                remedy="cut a part of it out, or leave it out; export with --resize says another way for all images",
            )
        return self._on_canvas(image, self.size, (0, 0))

    def _cut(self, image: Image.Image, size: tuple[int, int], fill: tuple[int, ...] | None) -> Image.Image:
        """Cut the centre out, and pad where it is smaller."""
        height, width = size
        left, top = self._offset(image.width, width), self._offset(image.height, height)
        if fill is None or (image.width >= width and image.height >= height):
            return image.crop((left, top, left + width, top + height))  # black outside of the image
        return self._on_canvas(image, size, (-left, -top))

    def _on_canvas(self, image: Image.Image, size: tuple[int, int], place: tuple[int, int]) -> Image.Image:
        """Return an image of ``size`` (height, width) with this one at ``place`` (left, top), the rest filled."""
        fill = self.fill or (0,) * self.channels
        canvas = Image.new(image.mode, size[::-1], fill[0] if image.mode == "L" else fill)
        canvas.paste(image, place)
        return canvas

    def _offset(self, given: int, wanted: int) -> int:
        if self.rounding != "nearest":
            return (given - wanted) // 2
        return round((given - wanted) / 2) if given >= wanted else -((wanted - given) // 2)

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


def _capped(height: int, width: int, edge: int, longest: int) -> tuple[int, int]:
    """Return height and width with a short edge of ``edge``, or less where the long one would exceed ``longest``.

    In the order of transformers' get_size_with_aspect_ratio, so that the same pixels are lost to rounding.
    """
    short, long = min(height, width), max(height, width)
    exact: float = edge
    if long / short * edge > longest:
        exact = longest * short / long
        edge = round(exact)
    if short == edge:
        return height, width
    far = int(exact * long / short)
    return (edge, far) if height <= width else (far, edge)


def _too_narrow(image: Image.Image, what: str) -> ImageError:
    return ImageError(
        f"an image of {image.width}x{image.height} pixels is too narrow to be {what}",
        remedy="cut a part of it out, or leave it out",
    )
