"""Whether an engine that is installed serves a target."""

from __future__ import annotations

from edgevit.backends.base import Backend
from edgevit.targets import Target, edition_for, split_name, target_names
from edgevit.versions import check_version


def check_engine(backend: Backend, target_name: str, target: Target) -> None:
    """Check that the version of ``backend`` is one that serves ``target``.

    Raises:
        MissingDependencyError: if it is not; the remedy names an edition of the target that it does serve.

    """
    found = backend.version()
    remedy = other_version(target_name, target, found)
    check_version(f"target {target_name}", target.backend, found, target.versions, remedy=remedy)


def other_version(target_name: str, target: Target, found: str) -> str:
    """Return what helps where the engine's version ``found`` does not serve ``target``."""
    base, _ = split_name(target_name)
    if base in target_names() and (other := edition_for(base, found)):
        return f"use the target {other}, which is for {found}"
    if target.backend in ("onnxruntime", "openvino"):
        return f'pip install "{target.backend}{target.versions}"'
    return f"install {target.backend} {target.versions}"
