"""Inference engines behind one protocol, found by name and imported only when they are asked for."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from edgevit.errors import InputError

if TYPE_CHECKING:
    from edgevit.backends.base import Backend

#: By name, which is also that of the engine's Python package and of the module here: the class in that module.
_CLASSES = {"onnxruntime": "OnnxRuntime", "openvino": "OpenVINO"}

BACKENDS = tuple(_CLASSES)


def get_backend(name: str) -> Backend:
    """Return the backend called ``name`` and import its engine.

    Raises:
        InputError: if there is none of that name.
        MissingDependencyError: if its engine is not installed.

    """
    if name not in _CLASSES:
        raise InputError(f"there is no backend '{name}'", remedy=f"use one of {', '.join(BACKENDS)}")
    backend: Backend = getattr(importlib.import_module(f"{__name__}.{name}"), _CLASSES[name])()
    return backend


def available_backends() -> tuple[str, ...]:
    """Return the names of the backends whose engine is installed, without importing it."""
    return tuple(name for name in BACKENDS if importlib.util.find_spec(name) is not None)
