"""Gathers what the report of a bundle shows beside its figures."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from edgevit import system
from edgevit.backends import REFERENCE, get_backend
from edgevit.bundle.reading import logical_path
from edgevit.bundle.store import Bundle
from edgevit.errors import EdgeViTError, MissingDependencyError
from edgevit.graph.needed import check_graph_packages
from edgevit.progress import SILENT, Progress
from edgevit.quantization.plan import QuantizationPlan
from edgevit.recipes import observer_name
from edgevit.report.insights import CalibrationSeen, Insights
from edgevit.stages.accuracy_details import KeptDetails, read_details

#: Memory that looking into models takes, as a multiple of the float32 file.
_MEMORY = 8
_NAMED = 12
#: Where a bundle keeps the plan for each way to store activations, for all tokens and for merged ones.
_PLAN = re.compile(r"calibration(?:-tokens\d+)?/plan(-symmetric)?\.json")


def look_into(bundle: Bundle, *, models: bool = True, progress: Progress = SILENT) -> Insights:
    """Return what the report shows of ``bundle`` beside its figures.

    Without ``models`` none is run, and attention maps and layers are left out. What cannot be shown here is named with
    the reason; nothing of it is an error.
    """
    kept = KeptDetails() if bundle.pack is not None else read_details(bundle)
    found = Insights(details=kept.details, pictures=dict(kept.thumbnails), calibrations=_calibrations(bundle))
    if not models:
        return found
    reason = _unobservable_reason(bundle)
    if reason is not None:
        merges = any(variant.token_merging is not None for variant in bundle.manifest.variants)
        drawn = f"Attention maps{', merged patches' * merges} and the error of each layer"
        return msgspec.structs.replace(found, missing=(f"{drawn} are not shown: {reason}",))
    from edgevit.stages.model_insights import look_into_models  # with onnx, which is not on a device

    return look_into_models(bundle, found, progress)


def _unobservable_reason(bundle: Bundle) -> str | None:
    try:
        check_graph_packages()
        get_backend(REFERENCE)
    except MissingDependencyError as error:
        return f"{error.message} ({error.remedy})"
    if bundle.pack is not None:
        return "a pack has no calibration; make the report of the bundle that it was packed from"
    if all(variant.name != "float32" for variant in bundle.manifest.variants):
        return "the bundle has no float32 file"
    needed = _MEMORY * bundle.variant("float32").bytes / (1 << 20)
    free = system.memory().available_mb
    if free is not None and free < needed:
        return f"that takes about {needed:.0f} MiB of memory, and {free} are free"
    return None


def _calibrations(bundle: Bundle) -> tuple[CalibrationSeen, ...]:
    """Return what is known of each calibration, that of all tokens first, then by the largest budgets."""
    found = _calibrations_of(bundle) if bundle.pack is None else ()
    return tuple(sorted(found, key=lambda each: (-(each.token_budget or 1), each.scheme)))


def _calibrations_of(bundle: Bundle) -> Iterator[CalibrationSeen]:
    for place in map(logical_path, bundle.manifest.extra):
        named = _PLAN.fullmatch(place)
        if named is None:
            continue
        try:
            plan = QuantizationPlan.load(bundle.verify_extra(place).path)
        except EdgeViTError:
            continue
        layers = {linear.of for linear in plan.linears}
        yield CalibrationSeen(
            scheme="symmetric" if named[1] else "asymmetric",
            images=plan.images,
            images_sha256=plan.images_sha256,
            observer=observer_name(plan.observer),
            layers=len(layers),
            integer_layers=len(plan.integer_linears()),
            kept_float=tuple(f"{each.layer}: {each.reason}" for each in plan.float_layers()[:_NAMED]),
            limit=None if plan.limit is None else plan.limit.reason,
            token_budget=None if plan.token_merging is None else plan.token_merging.budget,
        )
