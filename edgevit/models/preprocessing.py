"""How a checkpoint wants its images: as the files beside it say, else as its family does, said aloud."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Protocol, get_args

import msgspec

from edgevit.data.preprocess import ChannelOrder, Interpolation, Preprocess
from edgevit.errors import DataError
from edgevit.models.config import Configs, Levels, OpenClipPreprocess, Processor, TimmCfg
from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.overrides import Overrides
from edgevit.models.processors import (
    Geometry,
    Statistics,
    check_keys,
    class_name,
    class_of,
    crop_of,
    entries,
    filter_of,
    geometry_of,
)

_NOTHING = Overrides()
_CROP_PCT = 0.875  # timm's, where nothing says it
_DINOV3 = "DINOv3ViTImageProcessor"
_TIMM_WRAPPER = "TimmWrapperImageProcessor"


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


def preprocess_of(
    said: Configs, defaults: Defaults, usual: str, images: Images, given: Overrides = _NOTHING
) -> tuple[Preprocess, tuple[str, ...]]:
    """Return the preprocessing that a model's configs ask for, else ``defaults``, and what was assumed.

    ``usual`` is what the note calls ``defaults``. What ``given`` says replaces it later (``overridden``): what files
    say of that is not asked for here, and may be something that is not done.

    Raises:
        DataError: if what the files say contradicts itself, or is not done.
    """
    if given.settles:
        return _assumed(defaults, usual, images)[0], ()
    processor, cfg = said.processor, said.config.pretrained_cfg
    if processor is not None and class_name(processor) == _TIMM_WRAPPER:
        cfg = processor.pretrained_cfg or cfg
    elif processor is not None:
        return _OfProcessor(processor, cfg, defaults, images, given).preprocess()
    if cfg is not None and _says_images(cfg):
        return _of_timm(cfg, images, given)
    if said.open_clip is not None and said.open_clip.preprocess_cfg.mean and said.open_clip.preprocess_cfg.std:
        return _of_open_clip(said.open_clip.preprocess_cfg, defaults, images)
    return _assumed(defaults, usual, images)


def resized(preprocess: Preprocess, size: tuple[int, int]) -> Preprocess:
    """Return the preprocessing for images of another size (height, width), which cuts out the same part of them."""
    if size == preprocess.size:
        return preprocess
    edge, box = preprocess.resize, preprocess.box
    if edge is not None:
        edge = max(*size, round(edge * max(size) / max(preprocess.size)))
    if box is not None:
        high, wide = (round(b * new / old) for b, new, old in zip(box, size, preprocess.size, strict=True))
        box = max(high, 1), max(wide, 1)
    return msgspec.structs.replace(preprocess, size=size, resize=edge, box=box)


def describe(preprocess: Preprocess) -> str:
    """Return a preprocessing in words."""
    height, width = preprocess.size
    crop = f", crop {height}x{width}"
    edges = "x".join(map(str, preprocess.box or ()))
    way = {
        "short": f"squashed to {height}x{width}" if preprocess.resize is None else (
            f"short edge {preprocess.resize}{crop}"),
        "squash": f"squashed to {edges}{crop}",
        "cover": f"resized to cover {edges}{crop}",
        "contain": f"resized to fit in {edges}, padded{crop}",
        "none": f"not resized{crop}",
    }[preprocess.fit]  # fmt: skip
    return f"{way} {preprocess.interpolation}, mean {_numbers(preprocess.mean)}, std {_numbers(preprocess.std)}"


def _assumed(defaults: Defaults, usual: str, images: Images) -> tuple[Preprocess, tuple[str, ...]]:
    geometry = Geometry(images.image_size, _edge(images.image_size, defaults.resize))
    preprocess, notes = _make(images, geometry, defaults.interpolation, defaults.statistics)
    said = f"no file says how images are prepared: assumed {usual}, {describe(preprocess)}"
    return preprocess, (*notes, said)


class _OfProcessor:
    """What an image processor's file says, key by key; what it leaves out, timm's config says, then its class."""

    def __init__(
        self, processor: Processor, cfg: TimmCfg | None, defaults: Defaults, images: Images, given: Overrides
    ) -> None:
        self._said = processor
        self._cfg = cfg or TimmCfg()
        self._class = class_of(processor)
        self._defaults = defaults
        self._images = images
        self._given = given
        self._missing: dict[str, list[str]] = {}

    def preprocess(self) -> tuple[Preprocess, tuple[str, ...]]:
        geometry = Geometry(self._images.image_size, None) if self._given.shapes else self._geometry()
        if not self._given.shapes:
            check_keys(self._said)
        preprocess, notes = _make(self._images, geometry, self._filter(), self._statistics())
        said = tuple(
            f"the image processor's file does not say {', '.join(keys)}: taken from {where}"
            for where, keys in self._missing.items()
        )
        if self._said.crop_pct is not None and (self._class is None or self._class.crop_pct is None):
            said += (f"crop_pct is {self._said.crop_pct}, which {self._name} does not heed",)
        return preprocess, (*notes, *said)

    @property
    def _name(self) -> str:
        return class_name(self._said) or "a processor without a name"

    def _miss(self, key: str, where: str | None = None) -> None:
        own = f"{self._name}'s defaults" if self._class is not None else "the model's usual way"
        self._missing.setdefault(where or own, []).append(key)

    def _geometry(self) -> Geometry:
        said, own = self._said, self._class
        square = said.default_to_square if said.default_to_square is not None else (own is None or own.square)
        if own is None and said.default_to_square is None and isinstance(said.size, int):
            square = not said.do_center_crop
        crops = said.do_center_crop
        if crops is None:
            crops = own.center_crop if own is not None else (
                isinstance(said.size, dict) and bool(said.size.get("shortest_edge")))  # fmt: skip
        resizes = said.do_resize is not False
        size: dict[str, int] = {}
        if said.size is not None:
            size = entries(said.size, square=square)
        elif resizes:
            size = self._usual_size(crops=crops)
        crop = self._images.image_size
        if crops and said.crop_size is not None:
            crop = crop_of(said.crop_size)
        elif crops:
            self._miss("crop_size", "the model's image size")
        crop_pct = None
        if own is not None and own.crop_pct is not None:
            crop_pct = said.crop_pct if said.crop_pct is not None else self._cfg.crop_pct or own.crop_pct
            if said.crop_pct is None:
                self._miss("crop_pct", "config.json" if self._cfg.crop_pct else None)
        return geometry_of(size, crop, resizes=resizes, crops=crops, crop_pct=crop_pct)

    def _usual_size(self, *, crops: bool) -> dict[str, int]:
        """Return the class's size, in the model's measure: models come in more sizes than their classes know."""
        self._miss("size", "the model's image size")
        height, width = self._images.image_size
        if self._class is None:
            return {"height": height, "width": width}
        kind = self._class
        margin = max(kind.size.values()) / kind.crop if crops and kind.crop else 1
        if "shortest_edge" in kind.size:
            return {"shortest_edge": round(max(height, width) * margin)}
        return {"height": round(height * margin), "width": round(width * margin)}

    def _filter(self) -> Interpolation:
        if self._given.interpolation is not None:
            return self._given.interpolation
        if self._said.resample is not None:
            return self._checked(filter_of(self._said.resample))
        if self._cfg.interpolation is not None:
            self._miss("resample", "config.json")
            return _filter_called(self._cfg.interpolation)
        self._miss("resample")
        return filter_of(self._class.resample) if self._class is not None else self._defaults.interpolation

    def _checked(self, interpolation: Interpolation) -> Interpolation:
        if self._name == _DINOV3 and interpolation in ("bicubic", "lanczos"):
            raise DataError(
                f"resample is {self._said.resample} ({interpolation}) for {_DINOV3}, which resizes without keeping "
                "levels in 0..255; EdgeViT does not do that",
                remedy=f"say --interpolation bilinear, or {interpolation} for levels that are kept there",
            )
        return interpolation

    def _statistics(self) -> Statistics:
        if self._said.do_normalize is False:
            return _of_pixels(((0.0,), (1.0,)), self._said)
        usual = self._class.statistics if self._class is not None else self._defaults.statistics
        found = (
            self._levels("image_mean", self._said.image_mean, self._cfg.mean, usual[0]),
            self._levels("image_std", self._said.image_std, self._cfg.std, usual[1]),
        )
        return _of_pixels(found, self._said)

    def _levels(self, key: str, said: Levels | None, cfg: Levels | None, usual: tuple[float, ...]) -> tuple[float, ...]:
        if said is not None:
            return _tuple(said)
        self._miss(key, "config.json" if cfg is not None else None)
        return _tuple(cfg) if cfg is not None else usual


def _of_pixels(statistics: Statistics, processor: Processor) -> Statistics:
    """Return mean and deviation for pixels in 0..1, of those for pixels that were multiplied by another factor."""
    factor = 1.0 if processor.do_rescale is False else processor.rescale_factor
    if factor is None or math.isclose(255 * factor, 1):
        return statistics
    if not factor > 0:  # also where it is not a number
        raise DataError(f"rescale_factor is {factor}", remedy="correct it in preprocessor_config.json; 1/255 is usual")
    mean, std = statistics
    return tuple(value / (255 * factor) for value in mean), tuple(value / (255 * factor) for value in std)


def _says_images(cfg: TimmCfg) -> bool:
    return any(
        value is not None
        for value in (cfg.input_size, cfg.mean, cfg.std, cfg.interpolation, cfg.crop_pct, cfg.crop_mode)
    )


def _of_timm(cfg: TimmCfg, images: Images, given: Overrides) -> tuple[Preprocess, tuple[str, ...]]:
    size = cfg.input_size[1:] if cfg.input_size else images.image_size
    mean = _tuple(cfg.mean) if cfg.mean is not None else IMAGENET[0]
    std = _tuple(cfg.std) if cfg.std is not None else IMAGENET[1]
    geometry = Geometry(size, None) if given.shapes else _of_crop_mode(cfg, size, mean)
    interpolation = given.interpolation or _filter_called(cfg.interpolation or "bicubic")
    missing = [key for key in ("mean", "std", "interpolation", "crop_pct") if getattr(cfg, key) is None]
    notes = (f"timm's config does not say {', '.join(missing)}: taken from timm's defaults",) if missing else ()
    preprocess, more = _make(images, geometry, interpolation, (mean, std))
    return preprocess, (*notes, *more)


def _of_crop_mode(cfg: TimmCfg, size: tuple[int, int], mean: tuple[float, ...]) -> Geometry:
    crop_pct = cfg.crop_pct or _CROP_PCT
    if not 0 < crop_pct < math.inf:
        raise DataError(f"crop_pct is {crop_pct}", remedy="correct it: it is above 0, and 0.875 is usual")
    if cfg.crop_border_pixels:
        raise DataError(
            f"crop_border_pixels is {cfg.crop_border_pixels}, which EdgeViT does not do",
            remedy="say how images are prepared yourself: --resize EDGE or squash, or --crop",
        )
    box = math.floor(size[0] / crop_pct), math.floor(size[1] / crop_pct)
    match cfg.crop_mode or "center":
        case "squash":
            return Geometry(size, None) if box == size else Geometry(size, None, "squash", box)
        case "border":
            fill = tuple(min(255, max(0, round(255 * value))) for value in (mean if len(mean) > 1 else mean * 3))
            return Geometry(size, None, "contain", box, fill)
        case "center" if box[0] == box[1] and box[0] >= max(size):
            return Geometry(size, box[0])
        case "center":
            return Geometry(size, None, "cover", box)
        case mode:
            raise DataError(
                f"crop_mode is {mode}, and EdgeViT does center, border and squash",
                remedy="say it yourself: --resize EDGE or squash, or --crop",
            )


def _of_open_clip(cfg: OpenClipPreprocess, defaults: Defaults, images: Images) -> tuple[Preprocess, tuple[str, ...]]:
    size = images.image_size
    usual = Geometry(size, _edge(size, defaults.resize))
    ways = {
        "squash": Geometry(size, None),
        "shortest": Geometry(size, size[0]) if size[0] == size[1] else Geometry(size, None, "cover", size),
        "longest": Geometry(size, None, "contain", size),
    }
    geometry = usual if cfg.resize_mode is None else ways.get(cfg.resize_mode)
    if geometry is None:
        raise DataError(
            f"resize_mode is {cfg.resize_mode}, and EdgeViT does {', '.join(ways)}",
            remedy="correct it in open_clip_config.json",
        )
    interpolation = _filter_called(cfg.interpolation) if cfg.interpolation else defaults.interpolation
    return _make(images, geometry, interpolation, (cfg.mean or (), cfg.std or ()))


def _make(
    images: Images, geometry: Geometry, interpolation: Interpolation, statistics: Statistics
) -> tuple[Preprocess, tuple[str, ...]]:
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


def _filter_called(name: str) -> Interpolation:
    known: tuple[Interpolation, ...] = get_args(Interpolation)
    for one in known:
        if one == name:
            return one
    raise DataError(
        f"interpolation is {name}, and EdgeViT does {', '.join(known)}",
        remedy="say it yourself: --interpolation bicubic, or another",
    )


def _edge(size: tuple[int, int], ratio: float | None) -> int | None:
    return None if ratio is None else round(max(size) * ratio)


def _tuple(value: Levels) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)
