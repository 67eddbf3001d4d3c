"""What really works here: each engine runs a model, in a process of its own, which it may take down.

``python -m edgevit.backends.probes NAME`` runs the probe ``NAME`` and prints a list of :class:`Finding` as JSON.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import msgspec
import numpy as np

from edgevit.backends import get_backend, how_to_get, tiny_model
from edgevit.backends.base import BuildOptions
from edgevit.dependencies import EXTRAS, require
from edgevit.errors import EdgeViTError, MissingDependencyError, VerificationError

#: What float16 and the order of additions may change of the tiny model's answers, which are around 1.
_TOLERANCE = 0.02
_JETSON = Path("/etc/nv_tegra_release")


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine on one device, or the packages of an extra.

    ``builds`` and ``runs`` are what it has just done. ``version`` is None where it does not even load. ``device`` is
    CPU, GPU or NPU; ``compute_capability`` an NVIDIA GPU's, ``device_name`` what that is called. Where something does
    not work, ``problem`` says what and ``remedy`` what to type.
    """

    name: str
    device: str = "CPU"
    device_name: str | None = None
    compute_capability: str | None = None
    version: str | None = None
    builds: bool = False
    runs: bool = False
    problem: str | None = None
    remedy: str | None = None


def probe_openvino() -> list[Finding]:
    """Compile and run a model on each kind of device that OpenVINO has."""
    return [_probe_backend("openvino", device, {"DEVICE": device}) for device in ("CPU", "GPU", "NPU")]


def probe_onnxruntime() -> list[Finding]:
    """Run a model with onnxruntime."""
    return [_probe_backend("onnxruntime", "CPU", {})]


def _probe_backend(name: str, device: str, settings: Mapping[str, str]) -> Finding:
    """Take a model the whole way through a backend, and compare its answer."""
    version = None
    try:
        backend = get_backend(name)
        version = backend.version()
        with tempfile.TemporaryDirectory() as scratch:
            model, folder = Path(scratch, "model.onnx"), Path(scratch, "built")
            model.write_bytes(tiny_model.onnx_bytes())
            folder.mkdir()
            path = backend.build(model, folder, BuildOptions(settings=settings))[0]
            with backend.open(path, threads=1, settings=settings) as session:
                answer = session.infer(tiny_model.example())
        if not np.allclose(answer, tiny_model.answer(), atol=_TOLERANCE):
            raise VerificationError(f"{name} computes wrong answers on the {device}", remedy="install it again")
    except EdgeViTError as error:
        return Finding(name=name, device=device, version=version, problem=error.message, remedy=error.remedy)
    return Finding(name=name, device=device, version=version, builds=True, runs=True)


class Gpu(NamedTuple):
    """An NVIDIA GPU, as its driver describes it."""

    name: str
    compute_capability: str


def nvidia_gpu() -> Gpu:
    """Start the NVIDIA driver and return the first GPU.

    Raises:
        MissingDependencyError: if there is no driver, or no GPU.

    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise MissingDependencyError(
            "there is no NVIDIA driver: libcuda.so.1 does not load", remedy=_driver()
        ) from error
    count, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(128)
    calls: list[tuple[str, tuple[object, ...]]] = [
        ("cuInit", (0,)),
        ("cuDeviceGetCount", (ctypes.byref(count),)),
        ("cuDeviceGetName", (name, len(name), 0)),
        ("cuDeviceGetAttribute", (ctypes.byref(major), 75, 0)),  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        ("cuDeviceGetAttribute", (ctypes.byref(minor), 76, 0)),
    ]
    for function, arguments in calls:
        if code := getattr(cuda, function)(*arguments):
            raise MissingDependencyError(
                f"the NVIDIA driver finds no GPU: {function} gives error {code}",
                remedy="see what nvidia-smi says; in a container, start it with the GPU (--gpus all)",
            )
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")


def _driver() -> str:
    if _JETSON.exists():
        return "sudo apt install nvidia-jetpack"
    return "install the driver of your NVIDIA GPU: sudo apt install nvidia-driver, or sudo ubuntu-drivers install"


def probe_tensorrt() -> list[Finding]:
    """Make a builder of TensorRT, which opens the GPU; without a driver that would crash, so it is asked first."""
    jetpack = (
        "sudo apt install tensorrt python3-libnvinfer, and make the virtual environment with --system-site-packages"
    )
    return [
        _probe_tensorrt(
            "tensorrt",
            "tensorrt",
            jetpack if _JETSON.exists() else "where there is an NVIDIA GPU: pip install tensorrt",
        )
    ]


def probe_tensorrt_rtx() -> list[Finding]:
    """Make a builder of TensorRT-RTX, which needs no GPU; to run its engines does."""
    return [_probe_tensorrt("tensorrt-rtx", "tensorrt_rtx", how_to_get("tensorrt-rtx"))]


def _probe_tensorrt(name: str, module: str, remedy: str) -> Finding:
    version, builds = None, False
    try:
        try:
            engine = importlib.import_module(module)
        except (ImportError, OSError) as error:  # OSError: a library that it loads by ctypes
            missing = isinstance(error, ModuleNotFoundError) and error.name == module
            problem = f"the Python package '{module}' is not installed" if missing else f"{module}: {error}"
            raise MissingDependencyError(problem, remedy=remedy) from error
        version = str(engine.__version__)
        if name == "tensorrt-rtx":
            builds = _makes_builder(engine)
        gpu = nvidia_gpu()
        builds = builds or _makes_builder(engine)
    except EdgeViTError as error:
        return Finding(
            name=name, device="GPU", version=version, builds=builds, problem=error.message, remedy=error.remedy
        )
    return Finding(
        name=name,
        device="GPU",
        device_name=gpu.name,
        compute_capability=gpu.compute_capability,
        version=version,
        builds=builds,
        runs=builds,
    )


def _makes_builder(engine: ModuleType) -> bool:
    if engine.Builder(engine.Logger(engine.Logger.ERROR)) is None:
        raise MissingDependencyError("it makes no builder", remedy="install it again, in a version for your driver")
    return True


def _probe_extra(extra: str) -> Callable[[], list[Finding]]:
    def probe() -> list[Finding]:
        try:
            modules = [require(module, extra=extra) for module, brought in EXTRAS.items() if brought == extra]
        except MissingDependencyError as error:
            return [Finding(name=extra, problem=error.message, remedy=error.remedy)]
        return [Finding(name=extra, version=str(modules[0].__version__), runs=True)]

    return probe


#: By name: the engines, and the optional packages that commands need beside them.
PROBES: Mapping[str, Callable[[], list[Finding]]] = {
    "onnxruntime": probe_onnxruntime,
    "openvino": probe_openvino,
    "tensorrt": probe_tensorrt,
    "tensorrt-rtx": probe_tensorrt_rtx,
    "train": _probe_extra("train"),
    "quantize": _probe_extra("quantize"),
    "report": _probe_extra("report"),
}


def main(name: str) -> None:
    """Run a probe and print what it found on standard output; what engines print there goes to standard error."""
    answers = os.dup(1)
    os.dup2(2, 1)
    found = PROBES[name]()
    with os.fdopen(answers, "wb") as stream:
        stream.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main(sys.argv[1])
