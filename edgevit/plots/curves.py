"""Curves over the epochs of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edgevit.plots import svg
from edgevit.plots.axes import Scale, axes, nice_scale

_PANEL, _HEIGHT = 480, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 18.0, 76.0, 46.0
_COLOURS = 3


class Curve(NamedTuple):
    """A value for each epoch, None where there is none."""

    label: str
    values: Sequence[float | None]


class Panel(NamedTuple):
    """Curves of one kind, such as losses."""

    title: str
    curves: tuple[Curve, ...]


def draw_curves(panels: Sequence[Panel], label: str) -> bytes:
    """Return the file that shows ``panels`` beside one another; ``label`` says what they are."""
    width = _PANEL * len(panels)
    parts = [
        svg.element("g", *_panel(panel), transform=f"translate({_PANEL * index} 0)")
        for index, panel in enumerate(panels)
    ]
    return svg.standalone(svg.plot(parts, width, _HEIGHT, label), width, _HEIGHT)


def _panel(panel: Panel) -> Iterator[str]:
    values = [value for curve in panel.curves for part in _stretches(curve.values) for _, value in part] or [0.0]
    epochs = max((len(curve.values) for curve in panel.curves), default=1)
    x = nice_scale(1, max(epochs, 2), _LEFT, _PANEL - _RIGHT, ticks=8, whole=True)
    y = nice_scale(min(values), max(values), _HEIGHT - _BOTTOM, _TOP, ticks=5)
    yield svg.text_element(panel.title, _LEFT, 22, class_="heading")
    yield from axes(x, y, "epoch")
    for index, curve in enumerate(panel.curves):
        colour, row = f"c{index % _COLOURS}", 38 + 15 * index
        yield svg.element("line", class_=f"curve {colour}", x1=_LEFT, x2=_LEFT + 20, y1=row, y2=row)
        yield svg.text_element(curve.label, _LEFT + 28, row + 4)
        yield from _line(curve.values, x, y, colour)


def _line(values: Sequence[float | None], x: Scale, y: Scale, colour: str) -> Iterator[str]:
    """Yield the parts of a curve between epochs without a value; a single epoch is a dot."""
    for part in _stretches(values):
        places = [(x.at(epoch), y.at(value)) for epoch, value in part]
        if len(places) == 1:
            yield svg.element("circle", class_=f"dot {colour}", cx=places[0][0], cy=places[0][1], r=3)
        else:
            yield svg.element("polyline", class_=f"curve {colour}", points=" ".join(f"{a:g},{b:g}" for a, b in places))


def _stretches(values: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    part: list[tuple[int, float]] = []
    for epoch, value in enumerate(values, start=1):
        if value is not None and math.isfinite(value):
            part.append((epoch, value))
        elif part:
            yield part
            part = []
    if part:
        yield part
