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
from edgevit.quantization.emit import emit, scheme_of
from edgevit.quantization.kernels import check_kernels
from edgevit.quantization.plan import QuantizationPlan, Scheme
from edgevit.quantization.prepare import Prepared
from edgevit.targets import Target

#: The folder of a bundle that holds what calibration made: ranges, and for each scheme a prepared model and its plan.
CALIBRATION = "calibration"

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
    prepared = _prepared(bundle, scheme_of(target.dialect)) if precision == "int8" else None
    with scratch_folder() as scratch:
        return add(bundle, compile_variant(bundle, target_name, target, prepared, scratch, progress=progress))


def compile_variant(
    bundle: Bundle,
    target_name: str,
    target: Target,
    prepared: Prepared | None,
    scratch: Path,
    *,
    progress: Progress = SILENT,
) -> Compiled:
    """Compile the model for ``target`` below ``scratch``, as INT8 where it is ``prepared``, else as float32.

    Raises:
        BundleError: if it was prepared from another model.
        VerificationError: if a layer that the plan quantizes runs in float.
        MissingDependencyError: if the backend is not installed.
    """
    precision: Precision = "float32" if prepared is None else "int8"
    name = variant_name(target, precision)
    backend = get_backend(target.backend)
    progress.note(f"Building {name} for {target_name} with {target.backend} {backend.version()}")
    source = bundle.verify_files("float32")
    integer_layers: tuple[str, ...] = ()
    if prepared is not None:
        prepared.plan.check_source(source)
        source, integer_layers = scratch / f"{name}.onnx", prepared.plan.integer_layers()
        emit(prepared.model, prepared.plan, target.dialect, source)
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


def _prepared(bundle: Bundle, scheme: Scheme) -> Prepared:
    model, plan = f"{scheme}.onnx", f"{scheme}.json"
    present = {file.path.rpartition("/")[2] for file in bundle.manifest.extra}
    if not {model, plan} <= present:
        raise BundleError(
            f"{bundle.path} has not been calibrated for {scheme} INT8",
            remedy=f"edgevit quantize {bundle.path} --data IMAGES",
        )
    return Prepared(
        bundle.verify_extra(f"{CALIBRATION}/{model}"),
        QuantizationPlan.load(bundle.verify_extra(f"{CALIBRATION}/{plan}")),
    )
