"""Gathers what the report of a bundle shows beside its figures."""

from __future__ import annotations

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
#: Where a bundle keeps the plan for each way to store activations.
_PLANS = {"asymmetric": "calibration/plan.json", "symmetric": "calibration/plan-symmetric.json"}


def look_into(bundle: Bundle, *, models: bool = True, progress: Progress = SILENT) -> Insights:
    """Return what the report shows of ``bundle`` beside its figures.

    Without ``models`` none is run, and attention maps and layers are left out. What cannot be shown here is named with
    the reason; nothing of it is an error.
    """
    kept = KeptDetails() if bundle.pack is not None else read_details(bundle)
    found = Insights(details=kept.details, pictures=dict(kept.thumbnails), calibrations=tuple(_calibrations(bundle)))
    if not models:
        return found
    reason = _why_not(bundle)
    if reason is not None:
        return msgspec.structs.replace(
            found, missing=(f"Attention maps and the error of each layer are not shown: {reason}",)
        )
    from edgevit.stages.model_insights import look_into_models  # with onnx, which is not on a device

    return look_into_models(bundle, found, progress)


def _why_not(bundle: Bundle) -> str | None:
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


def _calibrations(bundle: Bundle) -> Iterator[CalibrationSeen]:
    present = {logical_path(file) for file in bundle.manifest.extra}
    for scheme, place in _PLANS.items():
        if place not in present or bundle.pack is not None:
            continue
        try:
            plan = QuantizationPlan.load(bundle.verify_extra(place).path)
        except EdgeViTError:
            continue
        layers = {linear.of for linear in plan.linears}
        yield CalibrationSeen(
            scheme=scheme,
            images=plan.images,
            images_sha256=plan.images_sha256,
            observer=observer_name(plan.observer),
            layers=len(layers),
            integer_layers=len(plan.integer_linears()),
            kept_float=tuple(f"{each.layer}: {each.reason}" for each in plan.float_layers()[:_NAMED]),
            limit=None if plan.limit is None else plan.limit.reason,
        )
