"""Accuracy against latency: which variants no other one beats in both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edgevit.plots import svg
from edgevit.plots.axes import Scale, axes, nice_scale
from edgevit.plots.labels import Box, Label, LabelPlace, place_labels

_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 18.0, 18.0, 46.0


class PlottedVariant(NamedTuple):
    """What is known of a variant: its median latency, and a rate in per cent with its interval.

    ``p90_ms`` draws how far slow inferences are from the median one, ``interval_ms`` where the median itself may lie.
    ``on_front`` says that no other variant is both faster and better. ``budget`` is the share of the work that merging
    tokens leaves, 1 without; variants of the same ``line`` are joined in that order.
    """

    text: str
    precision: str
    p50_ms: float
    rate: float
    low: float
    high: float
    on_front: bool = False
    p90_ms: float | None = None
    interval_ms: tuple[float, float] | None = None
    budget: float = 1.0
    line: str | None = None

    @property
    def far_ms(self) -> float:
        """The largest time that is drawn."""
        return max(self.p50_ms, self.p90_ms or 0.0, self.interval_ms[1] if self.interval_ms else 0.0)


class PlacedVariant(NamedTuple):
    """A variant in the plot: where it is, in pixels, and where its name stands."""

    variant: PlottedVariant
    place: LabelPlace
    label: Label


class BudgetLine(NamedTuple):
    """Where the variants of one precision and engine lie, in pixels, from the smallest token budget on."""

    precision: str
    places: list[tuple[float, float]]


class Tradeoff(NamedTuple):
    """A whole plot, ready to be drawn."""

    width: int
    height: int
    x: Scale
    y: Scale
    points: list[PlacedVariant]
    front: list[tuple[float, float]]
    lines: list[BudgetLine]


def tradeoff(variants: Sequence[PlottedVariant], width: int, height: int) -> Tradeoff | None:
    """Lay out ``variants``; None if there are fewer than two, which are no plot."""
    if len(variants) < 2:
        return None
    slowest = max(variant.far_ms for variant in variants)
    bottom, top = min(variant.low for variant in variants), max(variant.high for variant in variants)
    x = nice_scale(0.0, slowest * 1.15, _LEFT, width - _RIGHT, ticks=width // 90)
    y = nice_scale(bottom, top, height - _BOTTOM, _TOP, ticks=5)
    places = [_place(variant, x, y) for variant in variants]
    frame = Box(_LEFT, _TOP - 6, width - 2, height - _BOTTOM)
    labels = place_labels(places, [variant.text for variant in variants], frame)
    points = [PlacedVariant(*each) for each in zip(variants, places, labels, strict=True)]
    return Tradeoff(width, height, x, y, points, _front(points), _lines(points))


def _place(variant: PlottedVariant, x: Scale, y: Scale) -> LabelPlace:
    middle, far = x.at(variant.p50_ms), x.at(variant.far_ms)
    return LabelPlace(middle, y.at(variant.rate), y.at(variant.low), y.at(variant.high), far)


def draw_tradeoff(plot: Tradeoff, rate: str, name: str = "", *, titled: bool = False) -> str:
    """Return the SVG of a plot; ``rate`` is what is better higher up, ``name`` a class of the page's.

    A ``titled`` plot says itself what its upright axis is.
    """
    parts = axes(plot.x, plot.y, "median latency, ms →")
    if titled:
        parts.append(svg.text_element(rate, plot.x.start + 4, plot.y.end - 5))
    if len(plot.front) > 1:
        corners = " ".join(f"{x:g},{y:g}" for x, y in plot.front)
        parts.append(svg.element("polyline", class_="front", points=corners))
    for line in plot.lines:
        corners = " ".join(f"{x:g},{y:g}" for x, y in line.places)
        parts.append(svg.element("polyline", class_=f"budgets {_kind(line.precision)}", points=corners))
    for point in plot.points:
        parts.extend(_whiskers(point, plot.x))
    for variant, place, label in plot.points:
        parts.append(marker(variant.precision, place.x, place.y))
        parts.append(svg.text_element(variant.text, label.x, label.y, class_="name", text_anchor=label.anchor))
    said = f"{rate} of each variant against its median latency"
    if plot.lines:
        said += "; lines join the token budgets of each engine"
    return svg.plot(parts, plot.width, plot.height, said, name)


def marker(precision: str, x: float, y: float) -> str:
    """Return the sign of a precision: a ring for float32, a disc for INT8, a diamond for all others."""
    if _kind(precision) == "other":
        return svg.element("path", class_="mark other", d=f"M{x:g} {y - 7:g}l7 7l-7 7l-7 -7z")
    return svg.element("circle", class_=f"mark {precision}", cx=x, cy=y, r=5.5 if precision == "float32" else 6)


def _whiskers(point: PlacedVariant, scale: Scale) -> Iterator[str]:
    x, y, low, high, far = point.place
    kind = f"whisker {_kind(point.variant.precision)}"
    if low != high:
        yield svg.element("path", class_=kind, d=f"M{x:g} {low:g}V{high:g}m-4 0h8M{x - 4:g} {low:g}h8")
    if point.variant.interval_ms is not None:
        first, last = (scale.at(each) for each in point.variant.interval_ms)
        yield svg.element("path", class_=kind, d=f"M{first:g} {y - 4:g}v8m0 -4H{last:g}m0 -4v8")
    elif far != x:
        yield svg.element("path", class_=kind, d=f"M{x:g} {y:g}H{far:g}m0 -4v8")


def _kind(precision: str) -> str:
    return precision if precision in ("float32", "int8") else "other"


def _lines(points: Sequence[PlacedVariant]) -> list[BudgetLine]:
    """Return the lines that more than one point lies on."""
    found: dict[str, list[PlacedVariant]] = {}
    for point in points:
        if point.variant.line is not None:
            found.setdefault(point.variant.line, []).append(point)
    return [
        BudgetLine(
            those[0].variant.precision,
            [(point.place.x, point.place.y) for point in sorted(those, key=lambda each: each.variant.budget)],
        )
        for those in found.values()
        if len(those) > 1
    ]


def _front(points: Sequence[PlacedVariant]) -> list[tuple[float, float]]:
    """Return the corners of the staircase through the Pareto front, from the fastest on."""
    corners: list[tuple[float, float]] = []
    for place in sorted(point.place for point in points if point.variant.on_front):
        if corners:
            corners.append((place.x, corners[-1][1]))
        corners.append((place.x, place.y))
    return corners
