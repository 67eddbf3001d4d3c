"""``shapes``: procedural colour images of eight shapes, for tests and first tries without any file."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgevit.data.dataset import Dataset
from edgevit.errors import DataError

Corner = tuple[float, float]

_FINE = 4  # shapes are drawn this many times larger and averaged down, for smooth edges
_LIMITS = {"size": (8, 1024), "count": (1, 10_000_000), "seed": (0, 2**32 - 1)}
_DEFAULTS = {"size": 64, "count": 2000, "seed": 0}


def load_shapes(split: Literal["train", "test"], options: str = "") -> Shapes:
    """Return shapes with ``options`` such as "size=64,count=2000,seed=1".

    Raises:
        DataError: if an option is unknown, not a whole number, or out of range.

    """
    values = dict(_DEFAULTS)
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        key = key.strip()
        if key not in _LIMITS:
            raise DataError(f"shapes has no option '{key}'", remedy="use shapes:size=64,count=2000,seed=0")
        low, high = _LIMITS[key]
        number = value.strip()
        if not (number.isascii() and number.isdigit() and len(number) <= 10 and low <= int(number) <= high):
            raise DataError(f"shapes cannot take {option}", remedy=f"give {key} a whole number from {low} to {high}")
        values[key] = int(number)
    return Shapes(split, **values)


class Shapes(Dataset):
    """``count`` RGB images of ``size`` x ``size`` pixels; classes take turns.

    Image i depends on ``seed``, ``split``, ``size`` and i alone, not on ``count``.
    """

    def __init__(self, split: Literal["train", "test"], *, size: int, count: int, seed: int) -> None:
        labels = np.arange(count, dtype=np.int64) % len(_OUTLINES)
        super().__init__(f"shapes:size={size},count={count},seed={seed}", labels, tuple(_OUTLINES))
        self.size = size
        self._stream = (seed, 0 if split == "train" else 1)

    def image(self, index: int) -> Image.Image:
        """Return image ``index``, drawn again."""
        random = np.random.default_rng((*self._stream, index))
        background = _background(random, self.size)
        colour = _contrasting(random, background.mean(axis=(0, 1)))
        mask = _mask(random, self.size, _OUTLINES[self.class_names[int(self.labels[index])]])
        pixels = background + (colour - background) * mask[..., None]
        pixels += random.normal(0, random.uniform(0, 12), size=pixels.shape)
        return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))

    def describe(self, index: int) -> str:
        """Return the name of the set and the index."""
        return f"{self.name}[{index}]"


def _background(random: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Return a colour gradient (size, size, 3) in a random direction."""
    angle = random.uniform(0, 2 * math.pi)
    steps = np.linspace(-0.5, 0.5, size)
    slope = (math.cos(angle) * steps + math.sin(angle) * steps[:, None]) / math.sqrt(2) + 0.5
    first, second = random.uniform(0, 255, size=(2, 3))
    pixels: NDArray[np.float64] = first + 0.5 * (second - first) * slope[..., None]
    return pixels


def _contrasting(random: np.random.Generator, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a random colour (3,) that can be told from ``mean``."""
    candidates = random.uniform(0, 255, size=(3, 3))
    distances = np.linalg.norm(candidates - mean, axis=1)
    chosen: NDArray[np.float64] = candidates[distances.argmax()]
    return chosen


def _mask(random: np.random.Generator, size: int, outlines: Outlines) -> NDArray[np.float64]:
    """Return where the shape is (size, size), 0 to 1, at a random place, scale and rotation wholly in the image."""
    radius = size * random.uniform(0.22, 0.45)
    centre = random.uniform(radius, size - radius, size=2)
    turn = random.uniform(0, 2 * math.pi)
    cosine, sine = radius * math.cos(turn), radius * math.sin(turn)
    canvas = Image.new("L", (size * _FINE, size * _FINE))
    draw = ImageDraw.Draw(canvas)
    for fill, outline in zip((255, 0), outlines(), strict=False):
        draw.polygon(
            [
                (_FINE * (centre[0] + cosine * x - sine * y), _FINE * (centre[1] + sine * x + cosine * y))
                for x, y in outline
            ],
            fill=fill,
        )
    return np.asarray(canvas.reduce(_FINE), dtype=np.float64) / 255


def _arc(radius: float, start: float = 0.0, end: float = 2 * math.pi) -> list[Corner]:
    steps = [start + (end - start) * step / 48 for step in range(49)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in steps]


def _regular(*radii: float, corners: int) -> list[Corner]:
    angles = [2 * math.pi * corner / corners for corner in range(corners)]
    return [
        (radii[corner % len(radii)] * math.cos(angle), radii[corner % len(radii)] * math.sin(angle))
        for corner, angle in enumerate(angles)
    ]


def _box(half_width: float, half_height: float) -> list[Corner]:
    x, y = half_width, half_height
    return [(-x, -y), (x, -y), (x, y), (-x, y)]


def _cross(arm: float = 0.3, reach: float = 0.95) -> list[Corner]:
    quarter = [(arm, arm), (arm, reach), (-arm, reach)]
    turned = [quarter]
    for _ in range(3):
        turned.append([(-y, x) for x, y in turned[-1]])
    return [point for part in turned for point in part]


Outlines = Callable[[], list[list[Corner]]]

#: For each class the outline within the unit circle and, for one with a hole, the outline of the hole.
_OUTLINES: dict[str, Outlines] = {
    "bar": lambda: [_box(0.96, 0.25)],
    "circle": lambda: [_arc(1.0)],
    "cross": lambda: [_cross()],
    "half-disc": lambda: [_arc(1.0, 0, math.pi)],
    "ring": lambda: [_arc(1.0), _arc(0.55)],
    "square": lambda: [_regular(1.0, corners=4)],
    "star": lambda: [_regular(1.0, 0.4, corners=10)],
    "triangle": lambda: [_regular(1.0, corners=3)],
}
