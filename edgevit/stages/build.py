"""``edgevit build``: one precision of a bundle's model, compiled for a target and shown to run on its kernels."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgevit.backends import get_backend
from edgevit.bundle.manifest import Kernels, Precision
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError
from edgevit.progress import SILENT, Progress
from edgevit.quantization.emit import emit
from edgevit.quantization.kernels import check_kernels
from edgevit.quantization.plan import QuantizationPlan
from edgevit.targets import Target

PLAN = "calibration/plan.json"


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
        BundleError: if the bundle lacks the plan that INT8 needs.
        VerificationError: if a quantized layer runs in float; the bundle is as it was.
        MissingDependencyError: if the backend is not installed.
    """
    name = variant_name(target, precision)
    backend = get_backend(target.backend)
    integer_layers = _plan(bundle).integer_layers() if precision == "int8" else ()
    checked: list[Kernels] = []

    def fill(folder: Path) -> Sequence[Path]:
        with tempfile.TemporaryDirectory(prefix="edgevit-build-") as scratch:
            files = backend.build(_source(bundle, target, precision, Path(scratch)), folder)
        with backend.open(files[0], threads=0, settings=target.settings) as session:
            checked.append(check_kernels(session, integer_layers))
        return files

    progress.note(f"Building {name} for {target_name} with {target.backend} {backend.version()}")
    bundle = bundle.add_variant(
        name, precision=precision, backend=target.backend, target=target_name, settings=target.settings, fill=fill
    )
    return bundle.update_variant(name, kernels=checked[0])


def _plan(bundle: Bundle) -> QuantizationPlan:
    if all(file.path.rpartition("/")[2] != "plan.json" for file in bundle.manifest.extra):
        raise BundleError(
            f"{bundle.path} has not been calibrated for INT8",
            remedy=f"edgevit quantize {bundle.path} --data IMAGES",
        )
    return QuantizationPlan.load(bundle.verify_extra(PLAN))


def _source(bundle: Bundle, target: Target, precision: Precision, scratch: Path) -> Path:
    """Return the ONNX file to compile."""
    float32 = bundle.verify_files("float32")
    if precision == "float32":
        return float32
    quantized = scratch / "model.onnx"
    emit(float32, _plan(bundle), target.dialect, quantized)
    return quantized
