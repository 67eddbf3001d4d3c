"""Inference engines behind one class, found by name and imported only when they are asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgevit.errors import InputError

if TYPE_CHECKING:
    from edgevit.backends.backend import Backend

#: By name, where the class of each is: the module, which is imported without the engine, and the class in it.
BACKENDS: dict[str, str] = {
    "onnxruntime": "edgevit.backends.onnxruntime:OnnxRuntime",
    "openvino": "edgevit.backends.openvino:OpenVINO",
    "tensorrt": "edgevit.backends.tensorrt.backend:TensorRT",
    "tensorrt-rtx": "edgevit.backends.tensorrt.backend:TensorRTRTX",
}

#: The one that runs the exported file as it is: what float32 answers, the others are compared with.
REFERENCE = "onnxruntime"


def backend_class(name: str) -> type[Backend]:
    """Return the class of the backend called ``name``; its engine need not be installed.

    Raises:
        InputError: if there is none of that name.

    """
    if name not in BACKENDS:
        raise InputError(f"there is no backend '{name}'", remedy=f"use one of {', '.join(BACKENDS)}")
    module, _, kind = BACKENDS[name].partition(":")
    found: type[Backend] = getattr(importlib.import_module(module), kind)
    return found


def get_backend(name: str) -> Backend:
    """Return the backend called ``name`` and import its engine.

    Raises:
        InputError: if there is none of that name.
        MissingDependencyError: if its engine is not installed.

    """
    return backend_class(name)()


def available_backends() -> tuple[str, ...]:
    """Return the names of the backends that run models here; of those that need a device, it is tried."""
    return tuple(name for name in BACKENDS if backend_class(name).available())
