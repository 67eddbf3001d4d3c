"""Where things lie in the plot of latency against accuracy; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgevit.report.formats import printable

_GLYPH_WIDTH = 8.0  # of the plot's bold type, in a wide face
_LINE_HEIGHT = 15.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 18.0, 18.0, 46.0

_SHIFTS = (-12, 20, -28, 36, -44, 52)
_ABOVE = ((0.0, "middle"), (6.0, "end"), (-6.0, "start"))

#: What to write beside the point of a variant, given its number and itself.
Caption = Callable[[int, dict[str, Any]], str]


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


class Label(NamedTuple):
    """Where a text stands: its anchor and baseline."""

    x: float
    y: float
    anchor: str


class Point(NamedTuple):
    """A variant in the plot: its centre, its accuracy's interval, and its name."""

    entry: dict[str, Any]
    text: str
    x: float
    y: float
    y_low: float
    y_high: float
    label: Label


class Scale(NamedTuple):
    """A linear axis: values ``low`` to ``high`` lie at pixels ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    step: float

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)


class Plot(NamedTuple):
    """A whole plot, ready to be drawn."""

    width: int
    height: int
    x: Scale
    y: Scale
    points: list[Point]
    front: list[tuple[float, float]]


def nice_scale(low: float, high: float, start: float, end: float, *, ticks: int) -> Scale:
    """Return an axis over at least ``low`` to ``high`` whose about ``ticks`` marks are round numbers."""
    span = (high - low) or abs(high) or 1.0
    raw = span / ticks
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    marks = tuple(round(index * step, 10) for index in range(first, last + 1))
    return Scale(marks[0], marks[-1], start, end, marks, step)


def scatter(entries: Sequence[dict[str, Any]], axis: str, width: int, height: int, caption: Caption) -> Plot | None:
    """Lay out the variants that have both a time and an accuracy; None if fewer than two have.

    ``axis`` is ``top1`` or ``agreement``; entries are ``report_data``'s variants; ``caption`` names a point.
    """
    shown = [entry for entry in entries if entry["accuracy"] and entry["latency"] and entry["latency"]["p50_ms"]]
    if len(shown) < 2:
        return None
    spans = [_interval(entry, axis) for entry in shown]
    slowest = max(entry["latency"]["p50_ms"] for entry in shown)
    bottom, top = min(low for low, _ in spans), max(high for _, high in spans)
    x = nice_scale(0.0, slowest * 1.15, _LEFT, width - _RIGHT, ticks=width // 90)
    y = nice_scale(100 * bottom, 100 * top, height - _BOTTOM, _TOP, ticks=5)
    places = [
        (x.at(entry["latency"]["p50_ms"]), y.at(100 * entry["accuracy"][axis]), y.at(100 * low), y.at(100 * high))
        for entry, (low, high) in zip(shown, spans, strict=True)
    ]
    texts = [caption(index, entry) for index, entry in enumerate(shown)]
    labels = _place_labels(places, texts, Box(_LEFT, _TOP - 6, width - 2, height - _BOTTOM))
    points = [
        Point(entry, text, *place, label)
        for entry, text, place, label in zip(shown, texts, places, labels, strict=True)
    ]
    return Plot(width, height, x, y, points, _front(points))


def _interval(entry: dict[str, Any], axis: str) -> tuple[float, float]:
    rate = entry["accuracy"][axis]
    low, high = (entry["accuracy"]["top1_ci95"] if axis == "top1" else None) or (rate, rate)
    return low, high


def by_name(index: int, entry: dict[str, Any]) -> str:  # noqa: ARG001  # a Caption
    """Write a variant's name beside its point, and whether it failed."""
    name = printable(entry["name"], 34)
    return f"{name}, failed" if entry["verdict"]["word"] == "failed" else name


def by_number(index: int, entry: dict[str, Any]) -> str:  # noqa: ARG001  # a Caption
    """Write a number beside each point, where names have no room; a key below the plot says whose it is."""
    return str(index + 1)


def _front(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Return the corners of the staircase through the Pareto front, from the fastest on."""
    corners: list[tuple[float, float]] = []
    for point in sorted((point for point in points if point.entry["on_front"]), key=lambda point: point.x):
        if corners:
            corners.append((point.x, corners[-1][1]))
        corners.append((point.x, point.y))
    return corners


def _place_labels(places: Sequence[tuple[float, float, float, float]], texts: Sequence[str], frame: Box) -> list[Label]:
    """Put each text beside its point, in the first place where it covers least of points, whiskers and other texts."""
    taken = [Box(x - 7, y - 7, x + 7, y + 7) for x, y, _, _ in places]
    taken += [Box(x - 4, high, x + 4, low) for x, _, low, high in places]
    labels: list[Label] = []
    for (x, y, low, high), text in zip(places, texts, strict=True):
        choices = [
            Label(x + 11, y + 4, "start"),
            Label(x - 11, y + 4, "end"),
            *(Label(x + 8, y + shift, "start") for shift in _SHIFTS),
            *(Label(x - 8, y + shift, "end") for shift in _SHIFTS),
            *(Label(x + shift, high - 7, anchor) for shift, anchor in _ABOVE),
            *(Label(x + shift, low + 16, anchor) for shift, anchor in _ABOVE),
        ]
        best = min(choices, key=lambda label: _cost(_extent(label, text), frame, taken))
        taken.append(_extent(best, text))
        labels.append(best)
    return labels


def _extent(label: Label, text: str) -> Box:
    width = len(text) * _GLYPH_WIDTH
    left = label.x - {"start": 0.0, "middle": width / 2, "end": width}[label.anchor]
    return Box(left, label.y - _LINE_HEIGHT + 3, left + width, label.y + 3)


def _cost(box: Box, frame: Box, taken: Sequence[Box]) -> float:
    """Return the area that a text would cover of other things, and, worse, that would lie outside the plot."""
    outside = box.area - box.common(frame)
    return 10 * outside + sum(box.common(other) for other in taken)
