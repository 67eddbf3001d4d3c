"""``edgevit build``: one precision of a bundle's model, compiled for a target and shown to run on its kernels."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevit.backends import get_backend
from edgevit.bundle.manifest import Kernels, Precision
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, InputError
from edgevit.files import scratch_folder
from edgevit.progress import SILENT, Progress
from edgevit.quantization.emit import emit
from edgevit.quantization.kernels import check_kernels
from edgevit.quantization.plan import QuantizationPlan
from edgevit.targets import Target

PLAN = "calibration/plan.json"

_MAKEABLE: tuple[Precision, ...] = ("float32", "int8")


@dataclass(frozen=True, slots=True)
class Compiled:
    """A variant that is ready and checked, but not in the bundle yet; ``model`` in ``folder`` is the file to open."""

    name: str
    precision: Precision
    target_name: str
    target: Target
    folder: Path
    model: Path
    kernels: Kernels


def variant_name(target: Target, precision: Precision) -> str:
    """Return what the variant of ``precision`` for ``target`` is called; plain float32 is the exported file itself."""
    if precision == "float32" and target.backend == "onnxruntime":
        return "float32"
    return f"{precision}-{target.backend}"


def build(
    bundle: Bundle, target_name: str, target: Target, precision: Precision, *, progress: Progress = SILENT
) -> Bundle:
    """Add the variant of ``precision`` for ``target``; its Linear layers must run in the arithmetic that was planned.

    Raises:
        InputError: if the target does not take that precision.
        BundleError: if the bundle lacks the plan that INT8 needs.
        VerificationError: if a quantized layer runs in float; the bundle is as it was.
        MissingDependencyError: if the backend is not installed.
    """
    possible = [each for each in target.precisions if each in _MAKEABLE]
    if precision not in possible:
        unable = f"target {target_name} does not take" if precision in _MAKEABLE else "this EdgeViT cannot make"
        raise InputError(f"{unable} {precision}", remedy=f"use --precision {' or '.join(possible)}")
    plan = _plan(bundle) if precision == "int8" else None
    with scratch_folder() as scratch:
        return add(bundle, compile_variant(bundle, target_name, target, plan, scratch, progress=progress))


def compile_variant(
    bundle: Bundle,
    target_name: str,
    target: Target,
    plan: QuantizationPlan | None,
    scratch: Path,
    *,
    progress: Progress = SILENT,
) -> Compiled:
    """Compile the model for ``target`` below ``scratch``, as INT8 where there is a ``plan``, else as float32.

    Raises:
        VerificationError: if a layer that the plan quantizes runs in float.
        MissingDependencyError: if the backend is not installed.
    """
    precision: Precision = "float32" if plan is None else "int8"
    name = variant_name(target, precision)
    backend = get_backend(target.backend)
    progress.note(f"Building {name} for {target_name} with {target.backend} {backend.version()}")
    source, integer_layers = bundle.verify_files("float32"), ()
    if plan is not None:
        source, integer_layers = (
            _quantized(source, plan, target.dialect, scratch / f"{name}.onnx"),
            plan.integer_layers(),
        )
    folder = scratch / name
    folder.mkdir()
    model = backend.build(source, folder)[0]
    with backend.open(model, threads=0, settings=target.settings) as session:
        kernels = check_kernels(session, integer_layers)
    return Compiled(name, precision, target_name, target, folder, model, kernels)


def add(bundle: Bundle, compiled: Compiled) -> Bundle:
    """Add a compiled variant to the bundle.

    Raises:
        StorageError: if the disk is full or not writable; the bundle is as it was.
    """

    def fill(folder: Path) -> Sequence[Path]:
        shutil.copytree(compiled.folder, folder, dirs_exist_ok=True)
        return [folder / compiled.model.relative_to(compiled.folder)]

    return bundle.add_variant(
        compiled.name,
        precision=compiled.precision,
        backend=compiled.target.backend,
        target=compiled.target_name,
        settings=compiled.target.settings,
        kernels=compiled.kernels,
        fill=fill,
    )


def _quantized(float32: Path, plan: QuantizationPlan, dialect: str, path: Path) -> Path:
    emit(float32, plan, dialect, path)
    return path


def _plan(bundle: Bundle) -> QuantizationPlan:
    if all(file.path.rpartition("/")[2] != "plan.json" for file in bundle.manifest.extra):
        raise BundleError(
            f"{bundle.path} has not been calibrated for INT8",
            remedy=f"edgevit quantize {bundle.path} --data IMAGES",
        )
    return QuantizationPlan.load(bundle.verify_extra(PLAN))
