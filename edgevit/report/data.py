"""The content of the report as plain JSON; the page is drawn from this alone."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from edgevit.bundle.devices import is_shipped, measured_on
from edgevit.bundle.manifest import Accuracy, Manifest, MeasuredDevice, Variant
from edgevit.evaluation.candidates import baseline_of
from edgevit.evaluation.figures import MAX_BLOCK_SPREAD, MAX_INTERVAL_WIDTH, MIN_ROUNDS
from edgevit.files import shareable
from edgevit.json import decode
from edgevit.report.arithmetic import few_integers, share_in_integers
from edgevit.report.consistency import consistent
from edgevit.report.headline import headline, missing
from edgevit.report.insights import MOST_PICTURES, NO_INSIGHTS, Insights
from edgevit.report.merged_tokens import merging_data, whole_of
from edgevit.report.operators import operator_shares, time_in
from edgevit.report.table import output_figures, several
from edgevit.report.verdict import outcome
from edgevit.shell import quoted

SCHEMA_VERSION = 1

T = TypeVar("T")


def report_data(manifest: Manifest, insights: Insights = NO_INSIGHTS) -> dict[str, Any]:
    """Return the report of a bundle: strings, numbers, lists and dictionaries only.

    ``insights`` are what is shown beside the manifest; pictures among them are in base64, as many as a small page has
    room for.

    Figures are in the manifest's units: rates in 0..1, milliseconds, MiB, bytes. ``variants[].on_front`` says whether
    no other variant is both faster and more accurate (the Pareto front), ``variants[].baseline`` names the float32
    variant that it is compared with, ``variants[].whole`` the one like it whose tokens are all there, ``headline`` the
    fastest variant that passed everything. ``devices`` are the others that it was measured on; nothing else is said of
    those.
    """
    manifest = consistent(_without_folders(manifest))
    axis = accuracy_axis(manifest)
    front = _front(manifest, axis)
    data = {
        "schema_version": SCHEMA_VERSION,
        "name": manifest.name,
        "spec": manifest.model,
        "preprocess": manifest.preprocess,
        "labels": manifest.outcomes,
        "independent": manifest.independent,
        "outputs": manifest.typed_outputs,
        "output_figures": output_figures(manifest.variants),
        "provenance": manifest.provenance,
        "accuracy_axis": axis,
        "headline": headline(manifest),
        "missing": missing(manifest),
        "data": _distinct(
            {"name": variant.accuracy.data, "sha256": variant.accuracy.data_sha256, "images": variant.accuracy.images}
            for variant in manifest.variants
            if variant.accuracy
        ),
        "environments": _distinct(variant.latency.environment for variant in manifest.variants if variant.latency),
        "variants": [
            {
                **msgspec.structs.asdict(variant),
                "bytes": variant.bytes,
                "integer_share": None if variant.kernels is None else variant.kernels.integer_share,
                "integers": None if variant.kernels is None else share_in_integers(variant.kernels),
                "few_integers": few_integers(variant),
                "time_in": time_in(variant.latency),
                "operator_shares": operator_shares(variant.latency),
                "details": insights.details.get(variant.name),
                "kept_float": _kept_float(variant),
                "merging": merging_data(variant, manifest.model),
                "whole": whole_of(variant, manifest.variants),
                "verdict": outcome(variant)._asdict(),
                "on_front": variant.name in front,
                "rate": None if variant.accuracy is None else rate_on(variant.accuracy, axis),
                "baseline": baseline.name if (baseline := baseline_of(variant, manifest.variants)) else None,
            }
            for variant in manifest.variants
        ],
        "devices": [_device(manifest, each) for each in manifest.devices],
        "layers": insights.layers,
        "attention": insights.attention,
        "merged": insights.merged,
        "calibrations": insights.calibrations,
        "not_shown": insights.missing,
        "files": (*manifest.golden, *manifest.extra),
        "commands": _commands(manifest),
        "rules": {
            "min_rounds": MIN_ROUNDS,
            "max_interval_width": MAX_INTERVAL_WIDTH,
            "max_block_spread": MAX_BLOCK_SPREAD,
        },
        "pictures": _pictures(insights),
    }
    # By way of JSON, so that the page is the same whether it is drawn from here or from report.json.
    plain: dict[str, Any] = decode(msgspec.json.encode(data), dict[str, Any])
    return plain


def _pictures(insights: Insights) -> dict[str, str]:
    """Return the pictures in base64: those of maps first, then as many flipped images as there is room for."""
    shown: dict[str, str] = {}
    room = MOST_PICTURES
    flips = {flip.thumbnail for each in insights.details.values() for flip in each.flips}
    for name, content in sorted(insights.pictures.items(), key=lambda item: item[0] in flips):
        if len(content) <= room:
            room -= len(content)
            shown[name] = base64.b64encode(content).decode()
    return shown


def _device(manifest: Manifest, device: MeasuredDevice) -> dict[str, Any]:
    """Return what was measured on another device; ``shipped`` says whether a variant is still the bundle's own."""
    seen = consistent(_without_folders(measured_on(manifest, device)))
    own = {each.name: each for each in manifest.variants}
    axis = accuracy_axis(seen)
    return {
        "name": device.name,
        "environment": device.environment,
        "accuracy_axis": axis,
        "variants": [
            {
                "name": variant.name,
                "precision": variant.precision,
                "backend": variant.backend,
                "target": variant.target,
                "bytes": variant.bytes,
                "shipped": is_shipped(own.get(variant.name), there),
                "answers": there.answers,
                "accuracy": variant.accuracy,
                "latency": variant.latency,
                "verdict": outcome(variant)._asdict(),
                "rate": None if variant.accuracy is None else rate_on(variant.accuracy, axis),
            }
            for variant, there in zip(seen.variants, device.variants, strict=True)
        ],
    }


def _kept_float(variant: Variant) -> list[dict[str, str]]:
    """Return what is float on purpose and why, layers that have a reason in common together where they are many."""
    alike: dict[str, list[str]] = {}
    for each in variant.fallback:
        alike.setdefault(each.reason, []).append(each.layer)
    return [{"layers": layers, "reason": reason} for reason, those in alike.items() for layers in several(those)]


def accuracy_axis(manifest: Manifest) -> str:
    """Return which rate variants are compared by: ``top1``, or ``agreement`` where any has none.

    Of a model with outputs of its own it is the ``cosine`` of the worst of them.
    """
    measured = [variant.accuracy for variant in manifest.variants if variant.accuracy]
    if manifest.typed_outputs:
        return "cosine"
    return "top1" if all(accuracy.top1 is not None for accuracy in measured) else "agreement"


def rate_on(accuracy: Accuracy, axis: str) -> float:
    """Return the rate of a variant on the ``accuracy_axis``."""
    rates = [output.cosine_mean for output in accuracy.outputs] if axis == "cosine" else [getattr(accuracy, axis)]
    return min((rate for rate in rates if rate is not None), default=0.0)


def _distinct(entries: Iterable[T]) -> list[T]:
    kept: list[T] = []
    for entry in entries:
        if entry not in kept:
            kept.append(entry)
    return kept


def _front(manifest: Manifest, axis: str) -> set[str]:
    """Return the names of the variants that no other beats in one of time and accuracy without losing in the other."""
    timed = [
        (variant.name, variant.latency.p50_ms, rate_on(variant.accuracy, axis))
        for variant in manifest.variants
        if variant.accuracy and variant.latency and variant.latency.p50_ms is not None
    ]
    return {
        name
        for name, time, rate in timed
        if not any(other <= time and better >= rate and (other < time or better > rate) for _, other, better in timed)
    }


def _without_folders(manifest: Manifest) -> Manifest:
    """Return ``manifest`` without the folders of someone's machine, which bundles of before have in names."""
    variants = tuple(
        replace(
            variant,
            target=shareable(variant.target),
            accuracy=variant.accuracy and replace(variant.accuracy, data=shareable(variant.accuracy.data)),
        )
        for variant in manifest.variants
    )
    provenance = replace(manifest.provenance, source=shareable(manifest.provenance.source))
    return replace(manifest, variants=variants, provenance=provenance)


def _commands(manifest: Manifest) -> dict[str, list[str]]:
    """Return the commands that print each group of figures, for what was measured here."""
    bundle = quoted(f"{manifest.name}.edgevit")
    runs = _distinct(
        {"batch": variant.latency.batch, "threads": variant.latency.threads}
        for variant in manifest.variants
        if variant.latency
    )
    raced = _distinct({"target": variant.target} for variant in manifest.variants if variant.evidence)
    sets = _distinct({"data": variant.accuracy.data} for variant in manifest.variants if variant.accuracy)
    return {
        "files": [f"edgevit quantize {bundle} --data DATA", f"edgevit inspect {bundle}"],
        "accuracy": [f"edgevit validate {bundle} --data {quoted(entry['data'])}" for entry in sets],
        "latency": [f"edgevit benchmark {bundle} --batch {run['batch']} --threads {run['threads']}" for run in runs],
        "verdict": [f"edgevit race {bundle} --target {quoted(each['target'])} --data DATA" for each in raced],
    }
