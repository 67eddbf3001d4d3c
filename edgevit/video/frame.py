"""What a model sees of a camera's frame, for programs that crop it first and squash what is left to the input."""

from __future__ import annotations

from typing import NamedTuple

from edgevit.data.preprocess import Preprocess
from edgevit.errors import InputError


class Region(NamedTuple):
    """A part of a frame, in pixels from its left and top edge."""

    left: int
    top: int
    width: int
    height: int


def region_seen(preprocess: Preprocess, width: int, height: int) -> Region:
    """Return what of a frame of ``width`` and ``height`` becomes the input once it is resized and cropped.

    Raises:
        InputError: if the frame has no pixels, or the model's geometry is no crop of it that can be squashed.

    """
    if min(width, height) < 1:
        raise InputError(f"a frame has no {width}x{height} pixels", remedy="give --frame WIDTHxHEIGHT")
    if preprocess.fit == "squash" and preprocess.pad == "around" and preprocess.box == preprocess.size:
        return Region(0, 0, width, height)
    if preprocess.fit != "short" or preprocess.pad != "around":
        raise InputError(
            "the model's images are padded or fitted into a box, which no crop of a frame does",
            remedy="feed the frames through `edgevit.load(...).stream(...)`, which does: see docs/video.md",
        )
    if preprocess.resize is None:
        return Region(0, 0, width, height)
    scale = min(width, height) / preprocess.resize
    crop_height, crop_width = (max(1, round(edge * scale)) for edge in preprocess.size)
    return Region((width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height)
