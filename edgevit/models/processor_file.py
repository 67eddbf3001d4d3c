"""An image processor's file, key by key: what it leaves out, timm's config says, then the class's defaults."""

from __future__ import annotations

import math
from dataclasses import replace

from msgspec import UNSET

from edgevit.data.preprocess import Interpolation, Preprocess
from edgevit.errors import DataError
from edgevit.models.config import PixelLevels, Processor, TimmCfg
from edgevit.models.defaults import Defaults
from edgevit.models.geometry import Geometry, Steps, edges_of, entries, geometry_of
from edgevit.models.overrides import Overrides
from edgevit.models.prepared import ModelImages, fill_of, filter_called, levels, make
from edgevit.models.processors import (
    SAY_IT,
    PaddingGoal,
    Statistics,
    check_processor_keys,
    class_name,
    class_of,
    filter_of,
)

_DINOV3 = "DINOv3ViTImageProcessor"


class OfProcessor:
    """What an image processor's file says, key by key; what it leaves out, timm's config says, then its class."""

    def __init__(
        self, processor: Processor, cfg: TimmCfg | None, defaults: Defaults, images: ModelImages, overrides: Overrides
    ) -> None:
        self._said = processor
        self._cfg = cfg or TimmCfg()
        self._class = class_of(processor)
        self._defaults = defaults
        self._images = images
        self._overrides = overrides
        self._missing: dict[str, list[str]] = {}

    def preprocess(self) -> tuple[Preprocess, tuple[str, ...]]:
        """Return the preprocessing, and what the file left out.

        Raises:
            DataError: if what it says contradicts itself, or is not done.
        """
        geometry = Geometry(self._images.image_size, None) if self._overrides.shapes else self._geometry()
        if not self._overrides.shapes:
            check_processor_keys(self._said)
        interpolation, statistics = self._filter(), self._statistics()
        if geometry.pad != "around":
            mean = statistics[0] if geometry.pad == "after" else self._mean()
            geometry = replace(geometry, fill=fill_of(mean, geometry.pad))
        preprocess, notes = make(self._images, geometry, interpolation, statistics)
        said = tuple(
            f"the image processor's file does not say {', '.join(keys)}: taken from {where}"
            for where, keys in self._missing.items()
        )
        return preprocess, (*notes, *said, *self._unheeded())

    def _unheeded(self) -> tuple[str, ...]:
        """Return what the file says and its class does not heed."""
        said, own = self._said, self._class
        keys: dict[str, object] = {"crop_pct": said.crop_pct if own is None or own.crop_pct is None else None}
        if own is not None:
            keys |= {"do_pad": said.do_pad if own.padding is None else None, "size_divisor": said.size_divisor}
        return tuple(f"{key} is {value}, which {self._name} does not heed" for key, value in keys.items() if value)

    @property
    def _name(self) -> str:
        return class_name(self._said) or "a processor without a name"

    def _miss(self, key: str, where: str | None = None) -> None:
        own = f"{self._name}'s defaults" if self._class is not None else "the model's usual way"
        keys = self._missing.setdefault(where or own, [])
        if key not in keys:
            keys.append(key)

    def _geometry(self) -> Geometry:
        said, own = self._said, self._class
        crops, resizes = bool(said.do_center_crop), bool(said.do_resize)  # UNSET is no
        if said.do_center_crop is UNSET:
            crops = own.center_crop if own is not None else (
                isinstance(said.size, dict) and bool(said.size.get("shortest_edge")))  # fmt: skip
        if said.do_resize is UNSET:
            resizes = True
        size = self._size(crops=crops) if resizes else None
        crop = None
        if crops and said.crop_size is not None:
            crop = edges_of(said.crop_size, "crop_size")
        elif crops:
            crop = self._images.image_size
            self._miss("crop_size", "the model's image size")
        padding = self._padding()
        pad_size = self._pad_size() if padding == "to a size" else None
        return geometry_of(Steps(size, crop, padding, pad_size, self._crop_pct()))

    def _size(self, *, crops: bool) -> dict[str, int]:
        said, own = self._said, self._class
        if said.size is None:
            return self._usual_size(crops=crops)
        square = said.default_to_square if said.default_to_square is not None else (own is None or own.square)
        if own is None and said.default_to_square is None and isinstance(said.size, int):
            square = not said.do_center_crop
        size = entries(said.size, square=square)
        if own is not None and (size.keys() == {"longest_edge"}) != ("longest_edge" in own.size):
            takes = "takes a longest_edge alone" if "longest_edge" in own.size else "does not take that"
            raise DataError(f"size is {size}, and {self._name} {takes}", remedy=SAY_IT)
        return size

    def _crop_pct(self) -> float | None:
        if self._class is None or self._class.crop_pct is None:
            return None
        if self._said.crop_pct is not None:
            return self._said.crop_pct
        self._miss("crop_pct", "config.json" if self._cfg.crop_pct else None)
        return self._cfg.crop_pct or self._class.crop_pct

    def _padding(self) -> PaddingGoal | None:
        said, own = self._said, self._class
        pads = bool(said.do_pad) if said.do_pad is not UNSET else own is not None and own.pads
        if pads and own is None and said.size_divisor:
            raise DataError(
                f"do_pad is true and size_divisor is {said.size_divisor}, and the file does not name the class that "
                "says how images are padded to a multiple of that",
                remedy=SAY_IT,
            )
        usual: PaddingGoal | None = own.padding if own is not None else "to a size"
        return usual if pads else None

    def _pad_size(self) -> tuple[int, int] | None:
        if self._said.pad_size is not None:
            return edges_of(self._said.pad_size, "pad_size")
        if self._class is None or not self._class.pads:
            return None
        self._miss("pad_size", "the model's image size")
        return self._images.image_size

    def _usual_size(self, *, crops: bool) -> dict[str, int]:
        """Return the class's size, in the model's measure: models come in more sizes than their classes know."""
        self._miss("size", "the model's image size")
        height, width = self._images.image_size
        if self._class is None:
            return {"height": height, "width": width}
        kind = self._class
        margin = max(kind.size.values()) / kind.crop if crops and kind.crop else 1
        for edge in ("shortest_edge", "longest_edge"):
            if edge in kind.size:
                return {edge: round(max(height, width) * margin)}
        return {"height": round(height * margin), "width": round(width * margin)}

    def _filter(self) -> Interpolation:
        if self._overrides.interpolation is not None:
            return self._overrides.interpolation
        if self._said.resample is not None:
            return self._checked(filter_of(self._said.resample))
        if self._cfg.interpolation is not None:
            self._miss("resample", "config.json")
            return filter_called(self._cfg.interpolation)
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
        if self._said.do_normalize in (False, None):
            return _of_pixels(((0.0,), (1.0,)), self._said)
        usual = self._class.statistics if self._class is not None else self._defaults.statistics
        found = (
            self._mean(),
            self._levels("image_std", self._said.image_std, self._cfg.std, usual[1]),
        )
        return _of_pixels(found, self._said)

    def _mean(self) -> tuple[float, ...]:
        usual = self._class.statistics if self._class is not None else self._defaults.statistics
        return self._levels("image_mean", self._said.image_mean, self._cfg.mean, usual[0])

    def _levels(
        self, key: str, said: PixelLevels | None, cfg: PixelLevels | None, usual: tuple[float, ...]
    ) -> tuple[float, ...]:
        if said is not None:
            return levels(said)
        self._miss(key, "config.json" if cfg is not None else None)
        return levels(cfg) if cfg is not None else usual


def _of_pixels(statistics: Statistics, processor: Processor) -> Statistics:
    """Return mean and deviation for pixels in 0..1, of those for pixels that were multiplied by another factor."""
    factor = 1.0 if processor.do_rescale in (False, None) else processor.rescale_factor
    if factor is None or math.isclose(255 * factor, 1):
        return statistics
    if not factor > 0:  # also where it is not a number
        raise DataError(f"rescale_factor is {factor}", remedy="correct it in preprocessor_config.json; 1/255 is usual")
    mean, std = statistics
    return tuple(value / (255 * factor) for value in mean), tuple(value / (255 * factor) for value in std)
