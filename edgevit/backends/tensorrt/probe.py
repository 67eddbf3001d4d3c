"""What of TensorRT works on this machine, found by trying, and never at the cost of the process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgevit.backends.base import BuildOptions
from edgevit.backends.tensorrt.bindings import NAMES, Flavour, load_bindings
from edgevit.backends.tensorrt.cuda import CudaDevice, open_driver
from edgevit.backends.tensorrt.engine_info import incompatible_reason, read_info
from edgevit.backends.tensorrt.settings import parse_settings
from edgevit.backends.tensorrt.trtexec import find_trtexec
from edgevit.errors import InputError, MissingDependencyError, MissingError


def unavailable_reason(flavour: Flavour) -> str | None:
    """Return why no engine of ``flavour`` runs here, as a sentence with what to do; None if they do."""
    try:
        open_driver()  # first: without one, TensorRT itself may end the process
        load_bindings(flavour)
    except MissingError as error:
        return _sentence(error)
    return None


def unbuildable_reason(flavour: Flavour, options: BuildOptions) -> str | None:
    """Return why no engine of ``flavour`` is built here for the device of ``options``; None if it is.

    TensorRT-RTX compiles for any GPU that it knows, on any machine; TensorRT for the GPU at hand only.
    """
    try:
        if flavour == "tensorrt-rtx":
            load_bindings(flavour)
        here = capability_here() if flavour == "tensorrt" or options.compute_capability is None else None
        if flavour == "tensorrt":
            find_driver_of_tensorrt()
    except MissingError as error:
        return _sentence(error)
    wanted = options.compute_capability
    if here is not None and wanted not in (None, here):
        return f"{NAMES[flavour]} builds for the GPU at hand, which has compute capability {here}, not {wanted}"
    return None


def engine_mismatch_reason(flavour: Flavour, model: Path, settings: Mapping[str, str]) -> str | None:
    """Return why the file ``model`` of a bundle is not for this machine; None if it is, or opening it says more."""
    if reason := unavailable_reason(flavour):
        return reason
    if model.suffix != ".engine":
        return f"{NAMES[flavour]} has not built it yet (edgevit build, on this machine)"
    try:
        chosen = parse_settings(flavour, settings)
        if chosen.rebuild == "yes":
            return None
        return incompatible_reason(read_info(model), load_bindings(flavour), capability_here(), chosen)
    except InputError:
        return None


def find_driver_of_tensorrt() -> None:
    """Check that TensorRT has Python bindings here, or trtexec.

    Raises:
        MissingDependencyError: if it has neither.

    """
    try:
        load_bindings("tensorrt")
    except MissingDependencyError:
        if find_trtexec() is None:
            raise


def capability_here() -> str:
    """Return the compute capability of the GPU at hand.

    Raises:
        MissingDependencyError: if there is none.

    """
    return CudaDevice(open_driver()).compute_capability


def target_capability(flavour: Flavour, options: BuildOptions) -> str:
    """Return the compute capability to build for: that of ``options``, else that of the GPU at hand.

    Raises:
        InputError: if the two differ where only the GPU at hand will do, or neither is known.
        MissingDependencyError: if TensorRT finds no GPU.

    """
    wanted = options.compute_capability
    if flavour == "tensorrt-rtx" and wanted is not None:
        return wanted
    try:
        here = capability_here()
    except MissingDependencyError as error:
        if flavour == "tensorrt":
            raise
        raise InputError(
            f"{NAMES[flavour]} must be told which GPU to compile for: {error.message}",
            remedy="use a target with a compute_capability (edgevit targets)",
        ) from error
    if wanted not in (None, here):
        raise InputError(
            f"{NAMES[flavour]} builds for the GPU at hand, which has compute capability {here}, not {wanted}",
            remedy="build on the device itself, or use a target for this GPU",
        )
    return here


def _sentence(error: MissingError) -> str:
    return f"{error.message} ({error.remedy})"
