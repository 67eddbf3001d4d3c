"""Whether an engine that is installed serves a target."""

from __future__ import annotations

from edgevit.backends import backend_class
from edgevit.backends.backend import Backend
from edgevit.bundle.manifest import Precision
from edgevit.errors import MissingDependencyError
from edgevit.graph.saving import SavedModel
from edgevit.targets import Target, edition_for, split_name, target_names
from edgevit.versions import check_version, in_range


def check_engine(backend: Backend, target_name: str, target: Target, precision: Precision) -> None:
    """Check that the version of ``backend`` is one that serves ``target``, and builds ``precision``.

    Raises:
        MissingDependencyError: if it is not; the remedy names an edition of the target that it does serve.

    """
    found = backend.version()
    if not builds(target.backend, found, precision):
        needed = f"{target.backend}>={backend.built_since[precision]}"
        raise MissingDependencyError(
            f"{precision} is built with {needed}, and this is {found}",
            remedy=f'pip install "{needed}": the file runs on {target.backend} {target.versions or "of any version"}',
        )
    remedy = other_version(target_name, target, found)
    check_version(f"target {target_name}", target.backend, found, target.versions, remedy=remedy)


def builds(engine: str, found: str, precision: Precision) -> bool:
    """Say whether the version ``found`` of an engine builds ``precision``, where it serves the target."""
    first = backend_class(engine).built_since.get(precision)
    return first is None or in_range(found, f">={first}")


def other_version(target_name: str, target: Target, found: str) -> str:
    """Return what helps where the engine's version ``found`` does not serve ``target``."""
    base, _ = split_name(target_name)
    if base in target_names() and (other := edition_for(base, found)):
        return f"use the target {other}, which is for {found}"
    return backend_class(target.backend).how_to_install_version(target.versions)


def lower_for(file: SavedModel, target: Target, found: str) -> SavedModel:
    """Write an ONNX file anew, without ONNX's Attention, where the version ``found`` of the engine lacks it.

    Returns what it is then.

    Raises:
        StorageError: if it cannot be written.

    """
    if backend_class(target.backend).reads(file.opset, file.operators, found):
        return file
    from edgevit.quantization.emit.lower_attention import lower_attention

    return lower_attention(file.path)
