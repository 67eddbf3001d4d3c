"""The plot of latency against accuracy, from a report's variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgevit.plots import layers
from edgevit.plots.tradeoff import PlottedVariant, Tradeoff, tradeoff
from edgevit.report.formats import printable

_WORST, _FLOATS = 5, 12

#: What to write beside the point of a variant, given its number, itself, and the variants that are shown.
Caption = Callable[[int, dict[str, Any], Sequence[dict[str, Any]]], str]


def scatter(entries: Sequence[dict[str, Any]], axis: str, width: int, height: int, caption: Caption) -> Tradeoff | None:
    """Lay out the variants that have both a time and an accuracy; None if fewer than two have.

    ``axis`` is ``top1``, ``agreement`` or ``cosine``, entries are ``report_data``'s variants, and ``caption`` names
    a point.
    """
    shown = plotted(entries)
    variants = [_variant(entry, axis, caption(index, entry, shown)) for index, entry in enumerate(shown)]
    return tradeoff(variants, width, height)


def plotted(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the variants that have a place in the plot."""
    return [entry for entry in entries if entry["accuracy"] and entry["latency"] and entry["latency"]["p50_ms"]]


def layer_plots(seen: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the plots of ``report_data``'s layers, with the worst of them and those that are float."""
    found = []
    for each in seen:
        points = [
            layers.PlottedLayer(printable(layer["layer"]), layer["sqnr_db"], layer["kept_float"] is not None)
            for layer in each["layers"]
        ]
        noisy = [layer for layer in each["layers"] if layer["sqnr_db"] is not None]
        found.append(
            {
                "variants": each["variants"],
                "images": each["images"],
                "kinds": layers.layer_kinds(points),
                "wide": layers.draw_layers(points, 880, 340, "wide"),
                "narrow": layers.draw_layers(points, 360, 300, "narrow"),
                "worst": sorted(noisy, key=lambda layer: layer["sqnr_db"])[:_WORST],
                "floats": [layer for layer in each["layers"] if layer["kept_float"] is not None][:_FLOATS],
            }
        )
    return found


def _variant(entry: dict[str, Any], axis: str, text: str) -> PlottedVariant:
    rate = entry["rate"]
    low, high = (entry["accuracy"]["top1_ci95"] if axis == "top1" else None) or (rate, rate)
    latency = entry["latency"]
    interval = latency["p50_ci95"]
    return PlottedVariant(
        text,
        entry["precision"],
        latency["p50_ms"],
        100 * rate,
        100 * low,
        100 * high,
        entry["on_front"],
        interval_ms=None if interval is None else (interval[0], interval[1]),
        budget=_budget(entry) or 1.0,
        line=entry["whole"] or " ".join(("of", entry["precision"], entry["backend"], entry["target"])),
    )


def _budget(entry: dict[str, Any]) -> float | None:
    merging = entry["token_merging"]
    return None if merging is None else merging["budget"]


def by_name(index: int, entry: dict[str, Any], shown: Sequence[dict[str, Any]]) -> str:  # noqa: ARG001  # a Caption
    """Write a variant's name beside its point, and whether it failed.

    Where tokens are merged it is the budget alone, if the variant with all tokens, which a line leads to, has its name.
    """
    budget = _budget(entry)
    joined = any(each["name"] == entry["whole"] for each in shown)
    name = f"{budget:g}" if budget is not None and joined else printable(entry["name"], 34)
    return f"{name}, failed" if entry["verdict"]["word"] == "failed" else name


def by_number(index: int, entry: dict[str, Any], shown: Sequence[dict[str, Any]]) -> str:  # noqa: ARG001  # a Caption
    """Write a number beside each point, where names have no room; a key below the plot says whose it is."""
    return str(index + 1)
