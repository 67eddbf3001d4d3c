"""Linear axes whose marks are round numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

from edgevit.plots.svg import element, text_element

_LEAST = 1e-6  # nobody reads a smaller difference off a plot


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


def nice_scale(low: float, high: float, start: float, end: float, *, ticks: int, whole: bool = False) -> Scale:
    """Return an axis over at least ``low`` to ``high`` whose about ``ticks`` marks are round, or ``whole``, numbers."""
    span = next((size for size in (high - low, abs(high)) if size > _LEAST), 1.0)
    raw = max(span / ticks, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    factors = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    step = next(factor * power for factor in factors if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    marks = tuple(round(index * step, 10) for index in range(first, last + 1))
    return Scale(marks[0], marks[-1], start, end, marks, step)


def axes(x: Scale, y: Scale, title: str) -> list[str]:
    """Return the grid and the numbers of a plot; ``title`` says what ``x`` is."""
    grid = [element("line", x1=x.start, x2=x.end, y1=y.at(tick), y2=y.at(tick)) for tick in y.ticks]
    base = element("line", class_="axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start)
    numbers = [text_element(f"{tick:g}", x.start - 8, y.at(tick) + 4, text_anchor="end") for tick in y.ticks]
    for tick in x.ticks:
        place, anchor = x.at(tick), "end" if tick == x.ticks[-1] else "middle"
        numbers.append(element("line", class_="axis", x1=place, x2=place, y1=y.start, y2=y.start + 4))
        numbers.append(text_element(f"{tick:g}", place, y.start + 18, text_anchor=anchor))
    said = text_element(title, x.end, y.start + 38, class_="title", text_anchor="end")
    return [element("g", *grid, class_="grid"), base, element("g", *numbers, class_="ticks"), said]
