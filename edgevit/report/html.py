"""The report as one self-contained HTML page: nothing is loaded from elsewhere, and no script runs."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from edgevit.bundle.manifest import Manifest
from edgevit.dependencies import require
from edgevit.errors import InputError
from edgevit.files import write_atomically
from edgevit.plots import svg, tradeoff
from edgevit.report import formats
from edgevit.report.data import report_data
from edgevit.report.plot import by_name, by_number, plotted, scatter

_PAGE, _DATA = "index.html", "report.json"


def render_html(data: dict[str, Any]) -> str:
    """Return the page for ``report_data``'s dictionary; every text in it is escaped.

    Raises:
        MissingDependencyError: if jinja2 is not installed.

    """
    jinja2 = require("jinja2", extra="report")
    engine = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    engine.filters.update(
        {
            name: getattr(formats, name)
            for name in (
                *("percent", "percent_interval", "points", "milliseconds", "three_digits", "ratio", "ratio_interval"),
                *("megabytes", "mebibytes", "p_value", "nats", "decibels", "cosine", "printable"),
            )
        }
    )
    template = engine.from_string(resources.files("edgevit.report").joinpath("template.html").read_text("utf-8"))
    axis, variants = data["accuracy_axis"], data["variants"]
    named = {entry["name"]: entry for entry in variants}
    best = named.get(data["headline"])
    page: str = template.render(
        **data,
        best=best,
        best_baseline=best and named.get(best["baseline"]),
        plots={
            "wide": scatter(variants, axis, 880, 400, by_name),
            "narrow": scatter(variants, axis, 360, 340, by_number),
        },
        plotted=plotted(variants),
        draw=tradeoff.draw,
        mark=tradeoff.mark,
        plot_style=svg.STYLE,
        slowest=max((_bar_end(entry) for entry in variants), default=0.0),
    )
    return page


def _bar_end(entry: dict[str, Any]) -> float:
    latency = entry["latency"]
    return float(latency["p90_ms"] or 0.0) if latency else 0.0


def refuse_report(folder: Path) -> None:
    """Check that ``write_report`` would replace nothing in ``folder``: a page there may be someone else's.

    Raises:
        InputError: if it would.

    """
    for path in (folder / _PAGE, folder / _DATA):
        if os.path.lexists(path):
            raise InputError(f"{path} exists already", remedy="add --overwrite, or give another folder with -o")


def write_report(manifest: Manifest, folder: Path) -> tuple[Path, Path]:
    """Write ``index.html`` and ``report.json`` into ``folder``, each whole or not at all, and return their paths.

    Raises:
        MissingDependencyError: if jinja2 is not installed.
        StorageError: if the disk is full or not writable.

    """
    data = report_data(manifest)
    page = render_html(data)
    html_path, json_path = folder / _PAGE, folder / _DATA
    write_atomically(html_path, page.encode("utf-8", "replace"))
    write_atomically(json_path, msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n")
    return html_path, json_path
