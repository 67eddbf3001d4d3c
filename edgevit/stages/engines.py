"""Whether an engine that is installed serves a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgevit.backends.base import Backend
from edgevit.backends.onnx_versions import QUANTIZE_23, first_version
from edgevit.bundle.manifest import Precision
from edgevit.errors import MissingDependencyError
from edgevit.targets import Target, edition_for, split_name, target_names
from edgevit.versions import check_version, within

#: The first versions that make of ONNX a file that earlier ones run.
_BUILT_SINCE: Mapping[tuple[str, Precision], str] = {("openvino", "int4-weights"): "2025.3"}


def check_engine(backend: Backend, target_name: str, target: Target, precision: Precision) -> None:
    """Check that the version of ``backend`` is one that serves ``target``, and builds ``precision``.

    Raises:
        MissingDependencyError: if it is not; the remedy names an edition of the target that it does serve.

    """
    found = backend.version()
    if not builds(target.backend, found, precision):
        needed = f"{target.backend}>={_BUILT_SINCE[target.backend, precision]}"
        raise MissingDependencyError(
            f"{precision} is built with {needed}, and this is {found}",
            remedy=f'pip install "{needed}": the file runs on {target.backend} {target.versions or "of any version"}',
        )
    remedy = other_version(target_name, target, found)
    check_version(f"target {target_name}", target.backend, found, target.versions, remedy=remedy)


def builds(engine: str, found: str, precision: Precision) -> bool:
    """Say whether the version ``found`` of an engine builds ``precision``, where it serves the target."""
    first = _BUILT_SINCE.get((engine, precision))
    return first is None or within(found, f">={first}")


def other_version(target_name: str, target: Target, found: str) -> str:
    """Return what helps where the engine's version ``found`` does not serve ``target``."""
    base, _ = split_name(target_name)
    if base in target_names() and (other := edition_for(base, found)):
        return f"use the target {other}, which is for {found}"
    if target.backend in ("onnxruntime", "openvino"):
        return f'pip install "{target.backend}{target.versions}"'
    return f"install {target.backend} {target.versions}"


def lower_for(model: Path, target: Target, found: str) -> None:
    """Write the ONNX file ``model`` without ONNX's Attention where the version ``found`` of onnxruntime lacks it.

    Raises:
        StorageError: if it cannot be written.

    """
    if target.backend != "onnxruntime" or within(found, f">={QUANTIZE_23}"):
        return
    if not within(found, f">={first_version(model)}"):
        from edgevit.quantization.emit.lower_attention import lower_attention

        lower_attention(model)
