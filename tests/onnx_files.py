"""Quantization on files: tests look at what is written, where the library keeps models in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.bundle.reading import VerifiedFile
from edgevit.files import sha256_of
from edgevit.graph.linears import load_graph
from edgevit.graph.saving import save
from edgevit.quantization import emit as dialects
from edgevit.quantization.accuracy import range_search
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.calibration import calibrate as calibration
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.exact_rewrites import ExactRewrites
from edgevit.quantization.float16 import convert, scan
from edgevit.quantization.plan import QuantizationPlan
from edgevit.quantization.planning import linear_plan as plans
from edgevit.quantization.ptq import CalibrationImages, PtqModel, optimize, unrounded_weights
from edgevit.quantization.rewrites.passes import Options, apply_passes
from edgevit.quantization.rewrites.rotation import rotate_stream
from edgevit.quantization.weight_only import dynamic, packed
from edgevit.recipes import NO_REWRITES, Observer, Rewrites


class OnFile(NamedTuple):
    """An optimized model, where its file is, and the plan that belongs to it."""

    model: Path
    plan: QuantizationPlan
    ptq: PtqModel


def read(path: Path, *, rotated: bool = False) -> ir.Model:
    """Return the model of a file, with shapes, its residual stream rotated if so asked."""
    model = load_graph(path)
    common.ShapeInferencePass()(model)
    if rotated:
        rotate_stream(model.graph)
    return model


def ptq_of(path: Path, plan: QuantizationPlan) -> PtqModel:
    return PtqModel(read(path), plan)


def calibrate(path: Path, batches: Any, *, total: int, rotated: bool = False, **options: Any) -> CalibrationTable:
    model = read(path, rotated=rotated)
    return calibration.calibrate(model, batches, total=total, model_sha256=sha256_of(path), rotated=rotated, **options)


def make_plan(path: Path, table: CalibrationTable, **options: Any) -> QuantizationPlan:
    return plans.make_plan(read(path), table, **options)


def verified(path: Path) -> VerifiedFile:
    """Return the file ``path`` as a bundle does that has checked it."""
    return VerifiedFile(path, sha256_of(path))


def optimize_files(
    path: Path,
    images: CalibrationImages,
    places: Mapping[Scheme, Path],
    *,
    table: CalibrationTable | None = None,
    observer: Observer = "minmax",
    rewrites: Rewrites = NO_REWRITES,
) -> tuple[CalibrationTable, dict[Scheme, OnFile]]:
    """Calibrate and optimize the float32 file ``path`` for each scheme, and write what comes out to its place."""
    model = read(path, rotated=True)
    if table is None:
        table = calibration.calibrate(
            model,
            images.read(),
            total=images.batches,
            model_sha256=sha256_of(path),
            rotated=True,
            progress=images.progress,
        )
    check, found = ExactRewrites(path, images.read), {}
    for scheme, place in places.items():
        made = optimize(model.clone(), table, images, scheme, check=check, observer=observer, rewrites=rewrites)
        weights = unrounded_weights(model.clone(), table, Options(scheme, table.images, observer, rewrites))
        made = replace(made, unrounded=weights).save(place, place.with_suffix(".json"))
        found[scheme] = OnFile(place, made.plan, made)
    return table, found


def rewritten(
    path: Path,
    table: CalibrationTable,
    place: Path,
    passes: Any,
    scheme: Scheme = "asymmetric",
    *,
    observer: Observer = "minmax",
    rewrites: Rewrites = NO_REWRITES,
) -> CalibrationTable:
    """Apply ``passes`` to the model of ``path``, write it to ``place``, and return the ranges to expect."""
    model = read(path, rotated=table.rotated)
    table = apply_passes(model, table, Options(scheme, table.images, observer, rewrites), passes)
    save(model, place)
    return table


def emit(path: Path, plan: QuantizationPlan, dialect: str, place: Path, **options: Any) -> Mapping[str, str]:
    return dialects.emit(ptq_of(path, plan), dialect, place, **options).float_attentions


def emit_float8(path: Path, plan: QuantizationPlan, dialect: str, place: Path, **options: Any) -> Mapping[str, str]:
    return dialects.emit_float8(ptq_of(path, plan), dialect, place, **options).float_attentions


def emit_float32(path: Path, dialect: str, place: Path) -> None:
    dialects.emit_float32(load_graph(path), dialect, place)


def search_ranges(path: Path, images: CalibrationImages, schemes: Any, **options: Any) -> Any:
    return range_search.search_ranges(path, read(path, rotated=True), images, schemes, rotated=True, **options)


def scan_float16(path: Path, batches: Any, **options: Any) -> convert.Float16Plan:
    return scan.scan_float16(load_graph(path), batches, model_sha256=sha256_of(path), **options)


def emit_float16(path: Path, plan: convert.Float16Plan, place: Path) -> None:
    convert.emit_float16(load_graph(path), sha256_of(path), plan, place)


def emit_dynamic(path: Path, place: Path) -> tuple[str, ...]:
    return dynamic.emit_dynamic(load_graph(path), place).layers


def emit_weights_int8(path: Path, place: Path) -> tuple[str, ...]:
    return packed.emit_weights_int8(load_graph(path), place).layers


def emit_weights_int4(path: Path, place: Path) -> tuple[str, ...]:
    return packed.emit_weights_int4(load_graph(path), place).layers
