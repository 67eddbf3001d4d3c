"""How a checkpoint wants its images: as the files beside it say, else as its family does, said aloud."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from edgevit.data.preprocess import ChannelOrder, Interpolation, Preprocess
from edgevit.errors import DataError
from edgevit.models.config import Configs, OpenClipPreprocess, Processor, TimmCfg
from edgevit.models.defaults import Defaults

_PILLOW: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, which transformers stores


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


def preprocess_of(said: Configs, defaults: Defaults, usual: str, images: Images) -> tuple[Preprocess, tuple[str, ...]]:
    """Return the preprocessing that a model's configs ask for, else ``defaults``, and what was assumed.

    ``usual`` is what the note calls ``defaults``.

    Raises:
        DataError: if what the files say contradicts itself.
    """
    cfg = said.config.pretrained_cfg
    if said.processor is not None:
        return _of_processor(said.processor, defaults, images)
    if cfg is not None and cfg.mean is not None and cfg.std is not None:
        return _of_timm(cfg, images)
    if said.open_clip is not None and said.open_clip.preprocess_cfg.mean and said.open_clip.preprocess_cfg.std:
        return _of_open_clip(said.open_clip.preprocess_cfg, defaults, images)
    return _assumed(defaults, usual, images)


def resized(preprocess: Preprocess, size: tuple[int, int]) -> Preprocess:
    """Return the preprocessing for images of another size (height, width), which cuts out the same part of them."""
    edge = preprocess.resize
    if edge is not None:
        edge = max(*size, round(edge * max(size) / max(preprocess.size)))
    return Preprocess(
        size=size,
        resize=edge,
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        channel_order=preprocess.channel_order,
    )


def describe(preprocess: Preprocess) -> str:
    """Return a preprocessing in words."""
    height, width = preprocess.size
    way = f"squashed to {height}x{width}" if preprocess.resize is None else (
        f"short edge {preprocess.resize}, crop {height}x{width}")  # fmt: skip
    return f"{way} {preprocess.interpolation}, mean {_numbers(preprocess.mean)}, std {_numbers(preprocess.std)}"


def _assumed(defaults: Defaults, usual: str, images: Images) -> tuple[Preprocess, tuple[str, ...]]:
    edge = _edge(images.image_size, defaults.resize)
    preprocess, notes = _make(images, images.image_size, edge, defaults.interpolation, defaults.statistics)
    said = f"no file says how images are prepared: assumed {usual}, {describe(preprocess)}"
    return preprocess, (*notes, said)


def _of_processor(processor: Processor, defaults: Defaults, images: Images) -> tuple[Preprocess, tuple[str, ...]]:
    resize = _entries(processor.size)
    crop = _entries(processor.crop_size)
    square = images.image_size
    cropped = processor.do_center_crop if processor.do_center_crop is not None else "shortest_edge" in resize
    size = (crop.get("height", square[0]), crop.get("width", square[1])) if cropped else (
        resize.get("height", square[0]), resize.get("width", square[1]))  # fmt: skip
    edge = resize.get("shortest_edge", max(resize.values(), default=None)) if cropped else None
    notes: tuple[str, ...] = ()
    if cropped and isinstance(processor.size, dict) and "height" in resize:
        notes = (f"its preprocessing squashes images before it crops them: taken as a short edge of {edge}",)
    if edge is not None and edge < max(size):
        notes += (f"its preprocessing pads a short edge of {edge} to {max(size)}: taken as {max(size)}",)
        edge = max(size)
    interpolation = _PILLOW.get(3 if processor.resample is None else processor.resample)
    if interpolation is None:
        notes += (f"Pillow's filter {processor.resample} is not there: bicubic is used",)
    statistics = (processor.image_mean or defaults.statistics[0], processor.image_std or defaults.statistics[1])
    if processor.do_normalize is False:
        statistics = ((0.0,) * 3, (1.0,) * 3)
    preprocess, more = _make(images, size, edge, interpolation or "bicubic", _of_pixels(statistics, processor))
    return preprocess, (*notes, *more)


def _of_pixels(
    statistics: tuple[Sequence[float], Sequence[float]], processor: Processor
) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation for pixels in 0..1, of those for pixels that were multiplied by another factor."""
    factor = 1.0 if processor.do_rescale is False else processor.rescale_factor
    if factor is None or math.isclose(255 * factor, 1):
        return statistics
    if not factor > 0:  # also where it is not a number
        raise DataError(f"rescale_factor is {factor}", remedy="correct it in preprocessor_config.json; 1/255 is usual")
    mean, std = statistics
    return [value / (255 * factor) for value in mean], [value / (255 * factor) for value in std]


def _of_timm(cfg: TimmCfg, images: Images) -> tuple[Preprocess, tuple[str, ...]]:
    size = cfg.input_size[1:] if cfg.input_size else images.image_size
    edge = None if cfg.crop_mode == "squash" else max(*size, int(max(size) / (cfg.crop_pct or 0.875)))
    interpolation: Interpolation = "bilinear" if cfg.interpolation == "bilinear" else "bicubic"
    notes = (
        (f"assumed bicubic resizing for '{cfg.interpolation}'",)
        if cfg.interpolation not in ("bilinear", "bicubic", None)
        else ()
    )
    preprocess, more = _make(images, size, edge, interpolation, (cfg.mean or (), cfg.std or ()))
    return preprocess, (*notes, *more)


def _of_open_clip(cfg: OpenClipPreprocess, defaults: Defaults, images: Images) -> tuple[Preprocess, tuple[str, ...]]:
    way: dict[str | None, int | None] = {"squash": None, "shortest": max(images.image_size)}
    edge = way.get(cfg.resize_mode, _edge(images.image_size, defaults.resize))
    interpolation: Interpolation = "bilinear" if cfg.interpolation == "bilinear" else defaults.interpolation
    preprocess, notes = _make(images, images.image_size, edge, interpolation, (cfg.mean or (), cfg.std or ()))
    if cfg.resize_mode == "longest":
        notes += (f"its preprocessing pads images to a square: taken as {describe(preprocess)}",)
    return preprocess, notes


def _make(
    images: Images,
    size: tuple[int, int],
    edge: int | None,
    interpolation: Interpolation,
    statistics: tuple[Sequence[float], Sequence[float]],
) -> tuple[Preprocess, tuple[str, ...]]:
    mean, std = tuple(statistics[0]), tuple(statistics[1])
    notes: tuple[str, ...] = ()
    if images.channels == 1 and len(mean) == len(std) == 3:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
        notes = ("the model takes grey images: colour statistics are averaged",)
    order: ChannelOrder = "L" if images.channels == 1 else "RGB"
    preprocess = Preprocess(
        size=size, resize=edge, interpolation=interpolation, mean=mean, std=std, channel_order=order
    )  # fmt: skip
    return preprocess, notes


def _edge(size: tuple[int, int], ratio: float | None) -> int | None:
    return None if ratio is None else round(max(size) * ratio)


def _entries(value: int | dict[str, int | None] | None) -> dict[str, int]:
    if isinstance(value, int):
        return {"height": value, "width": value}
    return {name: number for name, number in (value or {}).items() if number is not None}


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)
