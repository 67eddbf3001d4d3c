"""How a user says that images are prepared; this overrides the files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from edgevit.data.preprocess import ChannelOrder, Interpolation, Preprocess
from edgevit.errors import DataError
from edgevit.models.prepared import fill_of

#: Ways to bring an image to its size: its short edge, the whole of it squashed, or its ratio kept and the rest padded,
#: below and at the right as detectors do, or around it. What is padded is the mean: 0 once it is normalised.
Resize: TypeAlias = int | Literal["squash", "pad", "letterbox"]
#: The order of channels that a model takes, where it has three.
Colours = Literal["rgb", "bgr"]


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a user says of how images are prepared; None leaves it to the files.

    ``preprocess`` is a file that says it, in place of those beside the model; the other values override what it
    says. ``mean`` and ``std`` are for pixels in 0..1, one value for all channels or one for each. ``resize`` is the
    short edge in pixels before the crop, or a word (see ``Resize``); ``crop`` is the crop in parts of that edge
    instead, timm's ``crop_pct``. ``colours`` is the order in which the model takes channels, and has its
    mean and std.
    """

    preprocess: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: Resize | None = None
    crop: float | None = None
    interpolation: Interpolation | None = None
    colours: Colours | None = None

    @property
    def shapes(self) -> bool:
        """Whether it says which part of an image the model sees."""
        return self.resize is not None or self.crop is not None

    @property
    def decides(self) -> bool:
        """Whether it leaves nothing to ask the files for."""
        return self.mean is not None and self.std is not None and self.shapes

    @property
    def changes(self) -> bool:
        """Whether it says anything itself, beside naming a file."""
        return (
            self.mean is not None
            or self.std is not None
            or self.shapes
            or self.interpolation is not None
            or (self.colours is not None)
        )


def overridden(preprocess: Preprocess, overrides: Overrides) -> Preprocess:
    """Return ``preprocess`` with what a user says in place of what it said.

    Raises:
        DataError: if that contradicts itself, or a mean is of pixels in 0..255.
    """
    changes: dict[str, object] = {
        name: values * preprocess.channels if len(values) == 1 else values
        for name, values in (("mean", overrides.mean), ("std", overrides.std))
        if values is not None
    }
    if overrides.shapes:
        changes |= {"fit": "short", "box": None, "fill": None, "resize": None}
        changes |= {"longest": None, "pad": "around", "crop": None}
    elif overrides.mean is not None and preprocess.fill is not None:
        mean = overrides.mean * preprocess.channels if len(overrides.mean) == 1 else overrides.mean
        changes["fill"] = fill_of(mean[::-1] if preprocess.channel_order == "BGR" else mean, preprocess.pad)
    if overrides.mean is not None and max(overrides.mean) > 1:
        said = ", ".join(f"{value:g}" for value in overrides.mean)
        raise DataError(f"a mean of {said} is not of pixels in 0..1", remedy="divide mean and std by 255")
    if overrides.resize in ("pad", "letterbox"):
        changes |= _padding(preprocess, overrides)
    elif isinstance(overrides.resize, int):
        changes["resize"] = overrides.resize
    elif overrides.crop is not None:
        height, width = preprocess.size
        box = math.floor(height / overrides.crop), math.floor(width / overrides.crop)
        changes |= {"resize": box[0]} if height == width else {"fit": "cover", "box": box}
    if overrides.interpolation is not None:
        changes["interpolation"] = overrides.interpolation
    if overrides.colours is not None:
        changes["channel_order"] = _order(preprocess, overrides.colours)
    return msgspec.structs.replace(preprocess, **changes)


def _padding(preprocess: Preprocess, overrides: Overrides) -> dict[str, object]:
    """Return what keeps an image's ratio within the model's size, and pads the rest with the mean."""
    mean = preprocess.mean if overrides.mean is None else overrides.mean
    order = preprocess.channel_order if overrides.colours is None else _order(preprocess, overrides.colours)
    fill = fill_of(mean[::-1] if order == "BGR" else mean, "around")
    return {
        "fit": "contain",
        "box": preprocess.size,
        "rounding": "half up",
        "fill": fill * (preprocess.channels if len(fill) == 1 else 1),
        "pad": "after" if overrides.resize == "pad" else "around",
    }


def _order(preprocess: Preprocess, colours: Colours) -> ChannelOrder:
    if preprocess.channels == 1:
        raise DataError("the model takes grey images, which have no order of colours", remedy="leave --colours out")
    return "BGR" if colours == "bgr" else "RGB"
