"""What all ways to say how images are prepared share: a model's side of it, filters by name, and the result."""

from __future__ import annotations

from dataclasses import asdict
from typing import Protocol, get_args

from edgevit.data.preprocess import ChannelOrder, Interpolation, Preprocess
from edgevit.errors import DataError
from edgevit.models.config import Levels
from edgevit.models.processors import Geometry, Statistics


class Images(Protocol):
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
    images: Images, geometry: Geometry, interpolation: Interpolation, statistics: Statistics
) -> tuple[Preprocess, tuple[str, ...]]:
    """Return the preprocessing of a model, and what was assumed for one that takes grey images."""
    mean, std = (values * images.channels if len(values) == 1 else values for values in statistics)
    values = asdict(geometry)
    notes: tuple[str, ...] = ()
    if images.channels == 1 and len(mean) == len(std) == 3:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        notes = ("the model takes grey images: colour statistics are averaged",)
    if images.channels == 1 and geometry.fill is not None:
        values["fill"] = (round(sum(geometry.fill) / len(geometry.fill)),)
    order: ChannelOrder = "L" if images.channels == 1 else "RGB"
    preprocess = Preprocess(interpolation=interpolation, mean=mean, std=std, channel_order=order, **values)
    return preprocess, notes


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


def levels(value: Levels) -> tuple[float, ...]:
    """Return a mean or deviation as a tuple, which one number may stand for."""
    return value if isinstance(value, tuple) else (value,)
