"""What all sources of preprocessing share: the model's size, filters by name, and the result."""

from __future__ import annotations

from dataclasses import asdict
from typing import Protocol, get_args

from edgevit.data.preprocess import ChannelOrder, Interpolation, Pad, Preprocess
from edgevit.errors import DataError
from edgevit.models.config import PixelLevels
from edgevit.models.geometry import Geometry
from edgevit.models.processors import Statistics


class ModelImages(Protocol):
    """What a model takes, such as its spec says it."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        ...

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        ...


def make(
    images: ModelImages, geometry: Geometry, interpolation: Interpolation, statistics: Statistics
) -> tuple[Preprocess, tuple[str, ...]]:
    """Return the preprocessing of a model, and what was assumed for one that takes grey images."""
    mean, std = (values * images.channels if len(values) == 1 else values for values in statistics)
    values = asdict(geometry)
    notes: tuple[str, ...] = ()
    if images.channels == 1 and len(mean) == len(std) == 3:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        notes = ("the model takes grey images: colour statistics are averaged",)
    if geometry.fill is not None:
        one = round(sum(geometry.fill) / len(geometry.fill))
        values["fill"] = (one,) * images.channels if 1 in (images.channels, len(geometry.fill)) else geometry.fill
    order: ChannelOrder = "L" if images.channels == 1 else "RGB"
    preprocess = Preprocess(interpolation=interpolation, mean=mean, std=std, channel_order=order, **values)
    return preprocess, notes


def fill_of(mean: tuple[float, ...], pad: Pad) -> tuple[int, ...]:
    """Return the levels that images are padded with where that is done with their mean, which has parts of 255.

    What is padded after it was normalised is 0 there. LLaVA, which pads to a square first, cuts levels down.

    Raises:
        DataError: if the mean is no level of a pixel.
    """
    if not all(0 <= value <= 1 for value in mean):
        raise DataError(
            f"images are padded with the mean, and {', '.join(map(str, mean))} is no colour",
            remedy="give a mean from 0 to 1, or say without padding how images are resized: --resize EDGE or squash",
        )
    return tuple(int(255 * value) if pad == "square" else round(255 * value) for value in mean)


def filter_called(name: str) -> Interpolation:
    """Return the filter that a config calls ``name``.

    Raises:
        DataError: if there is none, or it is not done.
    """
    known: tuple[Interpolation, ...] = get_args(Interpolation)
    for one in known:
        if one == name:
            return one
    raise DataError(
        f"interpolation is {name}, and EdgeViT does {', '.join(known)}",
        remedy="say it yourself: --interpolation bicubic, or another",
    )


def levels(value: PixelLevels) -> tuple[float, ...]:
    """Return a mean or deviation as a tuple, which one number may stand for."""
    return value if isinstance(value, tuple) else (value,)
