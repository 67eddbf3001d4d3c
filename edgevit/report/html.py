"""The report as one self-contained HTML page: nothing is loaded from elsewhere, and no script runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from edgevit.bundle.manifest import Manifest
from edgevit.dependencies import require
from edgevit.errors import InputError
from edgevit.files import write_atomically
from edgevit.plots import layers, svg, tradeoff
from edgevit.report import formats
from edgevit.report.columns import comparison, device_columns
from edgevit.report.data import report_data
from edgevit.report.insights import NO_INSIGHTS, Insights
from edgevit.report.plot import by_name, by_number, layer_plots, plotted, scatter

_PAGE, _DATA, _COMPARED = "index.html", "report.json", "comparison.json"
_PARTS = "page"


def render_html(data: dict[str, Any]) -> str:
    """Return the page for ``report_data``'s dictionary; every text in it is escaped.

    Raises:
        MissingDependencyError: if jinja2 is not installed.

    """
    axis, variants = data["accuracy_axis"], data["variants"]
    named = {entry["name"]: entry for entry in variants}
    best = named.get(data["headline"])
    return _rendered(
        "template.html",
        **data,
        best=best,
        best_baseline=best and named.get(best["baseline"]),
        plots={
            "wide": scatter(variants, axis, 880, 400, by_name),
            "narrow": scatter(variants, axis, 360, 340, by_number),
        },
        plotted=plotted(variants),
        draw=tradeoff.draw_tradeoff,
        mark=tradeoff.marker,
        layer_plots=layer_plots(data["layers"]),
        layer_key=layers.key,
        layer_ring=layers.ring,
        slowest=max((_bar_end(entry) for entry in variants), default=0.0),
        device_columns=device_columns(data),
    )


def render_comparison(data: dict[str, Any]) -> str:
    """Return the page for ``comparison``'s dictionary; every text in it is escaped.

    Raises:
        MissingDependencyError: if jinja2 is not installed.

    """
    return _rendered("compare.html", **data)


def _rendered(part: str, /, **values: Any) -> str:  # noqa: ANN401
    engine = _engine(require("jinja2", extra="report"))
    page: str = engine.get_template(part).render(**values, plot_style=svg.STYLE)
    return page


@cache
def _engine(jinja2: ModuleType) -> Any:  # noqa: ANN401 - it is imported at run time
    """Return what renders parts of the page; it compiles each once, which takes longer than to fill them in."""
    engine = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters.update(
        {
            name: getattr(formats, name)
            for name in (
                *("percent", "percent_interval", "points", "points_interval", "milliseconds", "three_digits"),
                *("speed_up", "ratio_interval", "megabytes", "mebibytes", "p_value", "nats", "decibels", "cosine"),
                *("printable", "signed_digits", "part", "weighted"),
            )
        }
    )
    return engine


def _part(name: str) -> str:
    """Return the text of a part of the page, which comes with EdgeViT."""
    folder = resources.files("edgevit.report")
    place = folder.joinpath(name) if name == "template.html" else folder.joinpath(_PARTS, name)
    return place.read_text("utf-8")


def _bar_end(entry: dict[str, Any]) -> float:
    latency = entry["latency"]
    if not latency:
        return 0.0
    ends = (latency["p90_ms"], latency["p99_ms"] if len(latency["quantiles_ms"]) > 1 else None)
    return max((float(end) for end in ends if end is not None), default=0.0)


def refuse_report(folder: Path) -> None:
    """Check that ``write_report`` would replace nothing in ``folder``: a page there may be someone else's.

    Raises:
        InputError: if it would.

    """
    for path in (folder / _PAGE, folder / _DATA, folder / _COMPARED):
        if os.path.lexists(path):
            raise InputError(f"{path} exists already", remedy="add --overwrite, or give another folder with -o")


def write_report(manifest: Manifest, folder: Path, insights: Insights = NO_INSIGHTS) -> tuple[Path, Path]:
    """Write ``index.html`` and ``report.json`` into ``folder``, each whole or not at all, and return their paths.

    ``insights`` are what is shown beside the manifest.

    Raises:
        MissingDependencyError: if jinja2 is not installed.
        StorageError: if the disk is full or not writable.

    """
    data = report_data(manifest, insights)
    return _write(folder, render_html(data), _DATA, data)


def write_comparison(
    manifests: Sequence[tuple[str, Manifest]], paths: Sequence[str], folder: Path
) -> tuple[Path, Path]:
    """Write ``index.html`` and ``comparison.json`` of several bundles into ``folder``, and return their paths.

    Each manifest comes with its title; ``paths`` are the bundles as they were given.

    Raises:
        MissingDependencyError: if jinja2 is not installed.
        StorageError: if the disk is full or not writable.

    """
    data = comparison([(title, report_data(manifest)) for title, manifest in manifests], paths)
    return _write(folder, render_comparison(data), _COMPARED, data)


def _write(folder: Path, page: str, name: str, data: dict[str, Any]) -> tuple[Path, Path]:
    html_path, json_path = folder / _PAGE, folder / name
    write_atomically(html_path, page.encode("utf-8", "replace"))
    write_atomically(json_path, msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n")
    return html_path, json_path
