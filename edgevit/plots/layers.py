"""The noise of each layer of a model, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgevit.plots import svg
from edgevit.plots.axes import axes, nice_scale

_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 18.0, 14.0, 46.0
_KINDS = 4
#: Above this there is next to no noise: higher ones are drawn on it.
_MOST_DB = 80.0


class PlottedLayer(NamedTuple):
    """A layer, its SQNR in dB (None where there is no noise), and whether it is float itself."""

    name: str
    sqnr_db: float | None
    kept_float: bool


def layer_kinds(layers: Sequence[PlottedLayer]) -> list[str]:
    """Return what kinds of layers there are, by the last part of their names; the most frequent first."""
    counts: dict[str, int] = {}
    for layer in layers:
        kind = _kind(layer.name)
        counts[kind] = counts.get(kind, 0) + 1
    return sorted(counts, key=lambda kind: -counts[kind])[:_KINDS]


def draw_layers(layers: Sequence[PlottedLayer], width: int, height: int, name: str = "") -> str:
    """Return the SVG of the ``layers``: a dot each, joined by kind, rings for those that are float."""
    kinds = layer_kinds(layers)
    levels = [_level(layer) for layer in layers]
    x = nice_scale(0, max(len(layers) - 1, 1), _LEFT + 8, width - _RIGHT, ticks=width // 110, whole=True)
    y = nice_scale(min(levels), max(levels), height - _BOTTOM, _TOP, ticks=6)
    parts = axes(x, y, "layer, in the order in which they run →")
    for index, kind in enumerate(kinds):
        places = [(x.at(at), y.at(_level(layer))) for at, layer in enumerate(layers) if _kind(layer.name) == kind]
        if len(places) > 1:
            points = " ".join(f"{across:g},{up:g}" for across, up in places)
            parts.append(svg.element("polyline", class_=f"curve thin k{index}", points=points))
    for at, layer in enumerate(layers):
        kind = _kind(layer.name)
        colour = f"k{kinds.index(kind)}" if kind in kinds else "k9"
        look = f"ring {colour}" if layer.kept_float else f"dot {colour}"
        said = "no noise" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB"
        title = svg.element("title", svg.xml_escaped(f"{layer.name}: {said}{', float' if layer.kept_float else ''}"))
        parts.append(svg.element("circle", title, class_=look, cx=x.at(at), cy=y.at(_level(layer)), r=3.6))
    label = f"Signal to noise ratio in dB of {len(layers)} layers in INT8 against float"
    return svg.plot(parts, width, height, label, name)


def key(index: int) -> str:
    """Return the sign of a kind of layers."""
    return svg.element("circle", class_=f"dot k{index}", cx=8, cy=8, r=4.5)


def ring() -> str:
    """Return the sign of a layer that is float."""
    return svg.element("circle", class_="ring k9", cx=8, cy=8, r=4)


def _level(layer: PlottedLayer) -> float:
    return _MOST_DB if layer.sqnr_db is None else min(layer.sqnr_db, _MOST_DB)


def _kind(name: str) -> str:
    return name.replace("/", ".").rstrip(".").rpartition(".")[2]
