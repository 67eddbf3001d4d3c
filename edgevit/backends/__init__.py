"""Inference engines behind one protocol, found by name and imported only when they are asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from edgevit.errors import InputError

if TYPE_CHECKING:
    from edgevit.backends.base import Backend, BuildOptions, LinearKernel
    from edgevit.backends.tensorrt.bindings import Flavour


class _Place(NamedTuple):
    """Where a backend is: the module below this package, and the class in it; ``package`` is its engine's in Python."""

    module: str
    kind: str
    package: str


_PLACES = {
    "onnxruntime": _Place("onnxruntime", "OnnxRuntime", "onnxruntime"),
    "openvino": _Place("openvino", "OpenVINO", "openvino"),
    "tensorrt": _Place("tensorrt.backend", "TensorRT", "tensorrt"),
    "tensorrt-rtx": _Place("tensorrt.backend", "TensorRTRTX", "tensorrt_rtx"),
}

BACKENDS = tuple(_PLACES)
#: Those that need a device of their own, which need not be this machine: what cannot be built here is built there, and
#: what cannot be run here is left out. The others are missing only until they are installed.
ON_DEVICE = ("tensorrt", "tensorrt-rtx")


def get_backend(name: str) -> Backend:
    """Return the backend called ``name`` and import its engine.

    Raises:
        InputError: if there is none of that name.
        MissingDependencyError: if its engine is not installed.

    """
    if name not in _PLACES:
        raise InputError(f"there is no backend '{name}'", remedy=f"use one of {', '.join(BACKENDS)}")
    place = _PLACES[name]
    backend: Backend = getattr(importlib.import_module(f"{__name__}.{place.module}"), place.kind)()
    return backend


def available_backends() -> tuple[str, ...]:
    """Return the names of the backends that run models here: those installed, and of ``ON_DEVICE`` those that start.

    The others are not imported.
    """
    return tuple(name for name in BACKENDS if why_not_run(name) is None)


def check_settings(name: str, given: Mapping[str, str]) -> None:
    """Check that the backend called ``name`` can be given the settings ``given``; it need not be installed.

    Raises:
        BundleError: if it does not have one of them, or one has a value that it cannot have.

    """
    if name in ON_DEVICE:
        from edgevit.backends.tensorrt.settings import parse_settings

        parse_settings(cast("Flavour", name), given)
    elif name == "openvino":
        from edgevit.backends.openvino_settings import checked

        checked(given)
    else:
        from edgevit.backends import onnxruntime

        onnxruntime.checked(given)


def why_not_run(name: str) -> str | None:
    """Return why the backend called ``name`` runs no model on this machine, and what to do; None if it does."""
    if name in ON_DEVICE:
        from edgevit.backends.tensorrt import probe

        return probe.why_not_run(cast("Flavour", name))
    if importlib.util.find_spec(_PLACES[name].package) is None:
        return f"the Python package '{_PLACES[name].package}' is not installed ({how_to_get(name)})"
    return None


def why_not_built(name: str, options: BuildOptions) -> str | None:
    """Return why the backend called ``name`` must build on the device, and not here; None if it is tried here."""
    if name not in ON_DEVICE:
        return None
    from edgevit.backends.tensorrt import probe

    return probe.why_not_built(cast("Flavour", name), options)


def why_not_here(name: str, model: Path, settings: Mapping[str, str]) -> str | None:
    """Return why ``model``, a file of the backend called ``name``, is not for this machine; None if it may be."""
    if name not in ON_DEVICE:
        return None
    from edgevit.backends.tensorrt import probe

    return probe.why_not_here(cast("Flavour", name), model, settings)


def kernels_when_built(name: str, model: Path) -> list[LinearKernel] | None:
    """Return how ``model``, a file of the backend called ``name``, executes its Linear layers, as its build found.

    None where the build does not tell: the others tell when they are opened.
    """
    if name not in ON_DEVICE:
        return None
    from edgevit.backends.tensorrt.report import KERNELS, read_report

    path = model.with_name(KERNELS)
    return list(read_report(path).linears) if path.is_file() else None


def how_to_get(name: str) -> str:
    """Return the command that installs the engine of the backend called ``name``."""
    if name in ON_DEVICE:
        from edgevit.backends.tensorrt import bindings

        return bindings.how_to_get(cast("Flavour", name))
    return f'pip install "edgevit[{name}]"'
