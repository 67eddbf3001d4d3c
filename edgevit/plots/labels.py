"""Where names stand beside the points of a plot, so that they cover nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_GLYPH_WIDTH = 8.0  # of the plot's bold type, in a wide face
_LINE_HEIGHT = 15.0
_SHIFTS = (-12, 20, -28, 36, -44, 52)
_ABOVE = ((0.0, "middle"), (6.0, "end"), (-6.0, "start"))


class Box(NamedTuple):
    """A rectangle that something fills."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """The area in square pixels."""
        return (self.right - self.left) * (self.bottom - self.top)

    def common(self, other: Box) -> float:
        """Return the area that both cover, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


class LabelPlace(NamedTuple):
    """A point with whiskers, in pixels: ``low`` is below it, ``far`` to its right."""

    x: float
    y: float
    low: float
    high: float
    far: float


class Label(NamedTuple):
    """Where a text stands: its anchor and baseline."""

    x: float
    y: float
    anchor: str


def place_labels(places: Sequence[LabelPlace], texts: Sequence[str], frame: Box) -> list[Label]:
    """Put each text beside its point, in the first place where it covers least of points, whiskers and other texts."""
    taken = [Box(x - 7, y - 7, x + 7, y + 7) for x, y, *_ in places]
    taken += [Box(x - 4, high, x + 4, low) for x, _, low, high, _ in places]
    taken += [Box(x, y - 4, far, y + 4) for x, y, _, _, far in places]
    labels: list[Label] = []
    for place, text in zip(places, texts, strict=True):
        best = min(_choices(place), key=lambda label: _cost(extent(label, text), frame, taken))
        taken.append(extent(best, text))
        labels.append(best)
    return labels


def _choices(place: LabelPlace) -> list[Label]:
    x, y, low, high, far = place
    return [
        *([Label(x + 11, y + 4, "start")] if far == x else []),
        Label(x - 11, y + 4, "end"),
        *(Label(x + 8, y + shift, "start") for shift in _SHIFTS),
        *(Label(x - 8, y + shift, "end") for shift in _SHIFTS),
        *(Label(x + shift, high - 7, anchor) for shift, anchor in _ABOVE),
        *(Label(x + shift, low + 16, anchor) for shift, anchor in _ABOVE),
        Label(far + 11, y + 4, "start"),  # the last: the end of a long whisker is far from its point
    ]


def extent(label: Label, text: str) -> Box:
    """Return the rectangle that ``text`` fills there."""
    width = len(text) * _GLYPH_WIDTH
    left = label.x - {"start": 0.0, "middle": width / 2, "end": width}[label.anchor]
    return Box(left, label.y - _LINE_HEIGHT + 3, left + width, label.y + 3)


def _cost(box: Box, frame: Box, taken: Sequence[Box]) -> float:
    """Return the area that a text would cover of other things, and, worse, that would lie outside the plot."""
    outside = box.area - box.common(frame)
    return 10 * outside + sum(box.common(other) for other in taken)
