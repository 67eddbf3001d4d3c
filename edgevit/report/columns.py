"""Bundles and devices side by side: a column for each, a row for each variant that any of them has."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from edgevit.report.formats import milliseconds

_MANY = 12  # columns that a page has room for


def device_columns(data: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of ``report_data``'s dictionary: this machine, then each other device."""
    columns = [_own(data, "this machine"), *(_device(each, each["name"]) for each in data["devices"])]
    return {"columns": columns[:_MANY], "rows": _rows(columns)}


def comparison(reports: Sequence[tuple[str, dict[str, Any]]], paths: Sequence[str]) -> dict[str, Any]:
    """Return what the page that compares ``reports`` shows; each is a title and ``report_data``'s dictionary.

    A bundle that was measured on other devices has a column for each of these, too. ``paths`` are the bundles, as they
    were given.
    """
    columns = []
    for title, data in reports:
        columns.append(_own(data, title))
        columns += [_device(each, f"{title} on {each['name']}", data) for each in data["devices"]]
    return {
        "schema_version": 1,
        "titles": [title for title, _ in reports],
        "columns": columns[:_MANY],
        "rows": _rows(columns[:_MANY]),
        "verdict_line": _verdict(columns[:_MANY]),
        "warnings": list(_warnings(reports, len(columns))),
        "command": f"edgevit report {shlex.join(paths)} -o FOLDER",
    }


def _own(data: dict[str, Any], title: str) -> dict[str, Any]:
    place = data["environments"][0] if data["environments"] else None
    return _column(title, place, data, data["variants"])


def _device(device: dict[str, Any], title: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    return _column(title, device["environment"], data, device["variants"])


def _column(
    title: str, place: dict[str, Any] | None, data: dict[str, Any] | None, variants: list[dict[str, Any]]
) -> dict[str, Any]:
    facts = []
    if place is not None:
        packages = ", ".join(f"{name} {version}" for name, version in place["packages"].items())
        facts = [f"{place['cpu']}, {place['cores']} cores, {place['machine']}; {place['os']}", packages]
    images = {each["accuracy"]["data"]: each["accuracy"]["images"] for each in variants if each["accuracy"]}
    facts += [f"{count:,} images of {name}" for name, count in images.items()]
    loads = {(each["latency"]["batch"], each["latency"]["threads"]) for each in variants if each["latency"]}
    facts += [f"timed with batch {batch} on {threads} thread{'s' * (threads != 1)}" for batch, threads in sorted(loads)]
    keys = ("precision", "bytes", "accuracy", "latency", "verdict", "rate")
    return {
        "title": title,
        "machine": "not timed" if place is None else f"{place['cpu']}, {place['cores']} cores",
        "model": "" if data is None else f"{data['name']}, weights {data['provenance']['weights_sha256'][:12]}",
        "facts": [fact for fact in facts if fact],
        "variants": {
            each["name"]: {
                **{key: each[key] for key in keys},
                "answers": each.get("answers"),
                "shipped": each.get("shipped", True),
            }
            for each in variants
        },
    }


def _rows(columns: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for column in columns for name in column["variants"]))


def _verdict(columns: Sequence[dict[str, Any]]) -> str:
    """Say which variant is the fastest that passed, in each column."""
    said, found = [], False
    for column in columns:
        passed = {
            name: entry["latency"]["p50_ms"]
            for name, entry in column["variants"].items()
            if entry["verdict"]["word"] == "passed" and entry["latency"]
        }
        best = min(passed, key=passed.__getitem__) if passed else None
        found = found or best is not None
        shown = "nothing has been shown to pass" if best is None else f"{best}, {milliseconds(passed[best])}"
        said.append(f"{column['title']}: {shown}")
    if not found:
        return "Nothing has been shown to pass in any of these yet."
    return f"The fastest that passed. {'; '.join(said)}."


def _warnings(reports: Sequence[tuple[str, dict[str, Any]]], columns: int) -> list[str]:
    """Say what keeps columns from being compared as they stand."""
    found = []
    if len({data["provenance"]["weights_sha256"] for _, data in reports}) > 1:
        found.append("These are not the same weights: differences are of the models, too.")
    sets = {each["sha256"] for _, data in reports for each in data["data"]}
    if len(sets) > 1:
        found.append("Accuracies were measured on different images: their differences may be those of the images.")
    loads = {
        (entry["latency"]["batch"], entry["latency"]["threads"])
        for _, data in reports
        for entry in data["variants"]
        if entry["latency"]
    }
    if len(loads) > 1:
        found.append("Times were taken with different batches or threads.")
    if columns > _MANY:
        found.append(f"{columns - _MANY} columns more are left out.")
    return found
