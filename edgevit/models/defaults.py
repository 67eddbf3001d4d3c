"""How images are prepared for models of which no file says it."""

from __future__ import annotations

from dataclasses import dataclass

from edgevit.data.preprocess import Interpolation

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True, slots=True)
class Defaults:
    """A usual way to prepare images: ``resize`` in parts of the crop, None squashes."""

    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    resize: float | None
    interpolation: Interpolation = "bicubic"
