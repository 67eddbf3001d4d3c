"""How a checkpoint's images are prepared: as the files beside it say, else as its family does, with a note."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError
from edgevit.models.config import Configs, OpenClipPreprocess, TimmCfg
from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.geometry import Geometry
from edgevit.models.overrides import Overrides
from edgevit.models.prepared import ModelImages, fill_of, filter_called, levels, make
from edgevit.models.processor_file import OfProcessor
from edgevit.models.processors import class_name

_NOTHING = Overrides()
_CROP_PCT = 0.875  # timm's, where nothing says it
_TIMM_WRAPPER = "TimmWrapperImageProcessor"


def preprocess_of(
    said: Configs, defaults: Defaults, usual: str, images: ModelImages, overrides: Overrides = _NOTHING
) -> tuple[Preprocess, tuple[str, ...]]:
    """Return the preprocessing that a model's configs ask for, else ``defaults``, and what was assumed.

    ``usual`` is what the note calls ``defaults``. What ``overrides`` says replaces it later (``overridden``): what
    files say of that is not asked for here, and may be something that is not done.

    Raises:
        DataError: if what the files say contradicts itself, or is not done.
    """
    if overrides.decides:
        return _assumed(defaults, usual, images)[0], ()
    processor, cfg = said.processor, said.config.pretrained_cfg
    if processor is not None and class_name(processor) == _TIMM_WRAPPER:
        cfg = processor.pretrained_cfg or cfg
    elif processor is not None:
        return OfProcessor(processor, cfg, defaults, images, overrides).preprocess()
    if cfg is not None and _says_images(cfg):
        return _of_timm(cfg, images, overrides)
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
    longest, crop = preprocess.longest, preprocess.crop
    if longest is not None:
        longest = max(round(longest * max(size) / max(preprocess.size)), 1)
    if crop is not None:
        high, wide = (round(c * new / old) for c, new, old in zip(crop, size, preprocess.size, strict=True))
        crop = max(high, 1), max(wide, 1)
    return msgspec.structs.replace(preprocess, size=size, resize=edge, box=box, longest=longest, crop=crop)


def describe_preprocessing(preprocess: Preprocess) -> str:
    """Return a preprocessing in words."""
    height, width = preprocess.size
    cut, after = preprocess.crop, preprocess.pad == "after"
    crop = f", crop {height}x{width}"
    if after:
        crop = f", crop {cut[0]}x{cut[1]}" if cut is not None else ""
    first = "padded to a square, " if preprocess.pad == "square" else ""
    limit = f", long edge at most {preprocess.longest}" if preprocess.longest is not None else ""
    edges = "x".join(map(str, preprocess.box or ()))
    way = {
        "short": f"squashed to {height}x{width}" if preprocess.resize is None else (
            f"short edge {preprocess.resize}{crop}"),
        "squash": f"squashed to {edges}{crop}",
        "cover": f"resized to cover {edges}{limit}{crop}",
        "contain": f"resized to fit in {edges}{crop}" if after else f"resized to fit in {edges}, padded{crop}",
        "none": f"not resized{crop}",
    }[preprocess.fit]  # fmt: skip
    if after:
        way += f", padded below and at the right to {height}x{width}"
    return f"{first}{way} {preprocess.interpolation}, mean {_numbers(preprocess.mean)}, std {_numbers(preprocess.std)}"


def describe_overridden(preprocess: Preprocess, overrides: Overrides) -> str:
    """Return how images are prepared, and what of that a user said: the rest may be an assumption."""
    names = ("mean", "std", "resize", "crop", "interpolation", "colours")
    given = [name for name in names if getattr(overrides, name) is not None]
    said = ", ".join(given[:-1]) + " and " * (len(given) > 1) + given[-1]
    return f"images are prepared with the {said} that you gave: {describe_preprocessing(preprocess)}"


def _assumed(defaults: Defaults, usual: str, images: ModelImages) -> tuple[Preprocess, tuple[str, ...]]:
    geometry = Geometry(images.image_size, _edge(images.image_size, defaults.resize))
    preprocess, notes = make(images, geometry, defaults.interpolation, defaults.statistics)
    said = f"no file says how images are prepared: assumed {usual}, {describe_preprocessing(preprocess)}"
    return preprocess, (*notes, said)


def _says_images(cfg: TimmCfg) -> bool:
    return any(
        value is not None
        for value in (cfg.input_size, cfg.mean, cfg.std, cfg.interpolation, cfg.crop_pct, cfg.crop_mode)
    )


def _of_timm(cfg: TimmCfg, images: ModelImages, overrides: Overrides) -> tuple[Preprocess, tuple[str, ...]]:
    size = cfg.input_size[1:] if cfg.input_size else images.image_size
    mean = levels(cfg.mean) if cfg.mean is not None else IMAGENET[0]
    std = levels(cfg.std) if cfg.std is not None else IMAGENET[1]
    geometry = Geometry(size, None) if overrides.shapes else _of_crop_mode(cfg, size, mean)
    interpolation = overrides.interpolation or filter_called(cfg.interpolation or "bicubic")
    missing = [key for key in ("mean", "std", "interpolation", "crop_pct") if getattr(cfg, key) is None]
    notes = (f"timm's config does not say {', '.join(missing)}: taken from timm's defaults",) if missing else ()
    preprocess, more = make(images, geometry, interpolation, (mean, std))
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
            return Geometry(size, None, "contain", box, fill_of(mean, "around"))
        case "center" if box[0] == box[1] and box[0] >= max(size):
            return Geometry(size, box[0])
        case "center":
            return Geometry(size, None, "cover", box)
        case mode:
            raise DataError(
                f"crop_mode is {mode}, and EdgeViT does center, border and squash",
                remedy="say it yourself: --resize EDGE or squash, or --crop",
            )


def _of_open_clip(
    cfg: OpenClipPreprocess, defaults: Defaults, images: ModelImages
) -> tuple[Preprocess, tuple[str, ...]]:
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
    interpolation = filter_called(cfg.interpolation) if cfg.interpolation else defaults.interpolation
    return make(images, geometry, interpolation, (cfg.mean or (), cfg.std or ()))


def _edge(size: tuple[int, int], ratio: float | None) -> int | None:
    return None if ratio is None else round(max(size) * ratio)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)
