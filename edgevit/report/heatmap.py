"""A map of weights laid over the picture that they are of."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Pixels of the longer side.
SIDE = 144
#: From no weight to the most: dark blue, teal, green, yellow; the light rises throughout, for those who see no hues.
_COLOURS = np.array([(32, 12, 74), (33, 92, 140), (32, 158, 120), (180, 205, 60), (255, 240, 120)], dtype=np.float64)
_LEAST, _MOST = 0.5, 0.75  # how much of the colour is seen
_QUALITY = 80


def photo(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture (H, W, 1 or 3) as a JPEG of ``SIDE`` pixels."""
    return _jpeg(np.asarray(_picture(pixels)))


def heatmap(pixels: NDArray[np.uint8], weights: NDArray[np.float64]) -> bytes:
    """Return ``weights`` (rows, columns), at least 0, over a picture (H, W, 1 or 3), as a JPEG of ``SIDE`` pixels.

    The largest of them has the brightest colour and the smallest the darkest, whatever they are.
    """
    picture = _picture(pixels)
    spread = float(np.ptp(weights))
    share = ((weights - weights.min()) / spread if spread > 0 else np.zeros_like(weights)).astype(np.float32)
    smooth = Image.fromarray(share).resize(picture.size, Image.Resampling.BICUBIC)
    level = np.clip(np.asarray(smooth, dtype=np.float64), 0, 1)
    places = level * (len(_COLOURS) - 1)
    colour = np.stack(
        [np.interp(places, np.arange(len(_COLOURS)), _COLOURS[:, channel]) for channel in range(3)], axis=-1
    )
    grey = np.asarray(picture.convert("L"), dtype=np.float64)[..., None]
    opacity = (_LEAST + (_MOST - _LEAST) * level)[..., None]
    return _jpeg(np.clip(opacity * colour + (1 - opacity) * grey, 0, 255).astype(np.uint8))


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    return as_rgb(pixels, (max(1, round(width * scale)), max(1, round(height * scale))))


def as_rgb(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Return a picture (H, W, 1 or 3) in colour, with ``size`` (width, height) in pixels."""
    whole = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    smooth = size[0] < 2 * whole.width
    return whole.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return stream.getvalue()
