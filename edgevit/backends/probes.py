"""What really works here: each engine runs a model, in a process of its own, which it may take down.

``python -m edgevit.backends.probes NAME`` runs the probe ``NAME`` and prints a list of :class:`Finding` as JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial

import msgspec
import numpy as np

from edgevit.backends import BACKENDS, backend_class, get_backend, tiny_model
from edgevit.backends.base import BuildOptions, ComputeCapability
from edgevit.backends.tensorrt.cuda import CudaDevice, open_driver
from edgevit.dependencies import EXTRAS, require
from edgevit.errors import EdgeViTError, MissingDependencyError, MissingError, VerificationError
from edgevit.files import scratch_folder

#: What float16 and the order of additions may change of the tiny model's answers, which are around 1.
_TOLERANCE = 0.02
#: What is compiled for where there is no GPU.
_ANY_GPU: ComputeCapability = "8.6"


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


def probe_engine(name: str) -> list[Finding]:
    """Build and run a model on each kind of device that an engine has; for a GPU of NVIDIA's as far as it goes."""
    kind = backend_class(name)
    if kind.builds_on_device:
        return [_probe_on_gpu(name, elsewhere=_ANY_GPU if kind.cross_compiles else None)]
    return [
        _probe_backend(name, device, BuildOptions(settings=kind.device_settings(device))) for device in kind.devices
    ]


def _probe_backend(name: str, device: str, options: BuildOptions) -> Finding:
    """Take a model the whole way through a backend, and compare its answer."""
    found = Finding(name=name, device=device)
    try:
        backend = get_backend(name)
        found = msgspec.structs.replace(found, version=backend.version())
        with scratch_folder() as scratch:
            model, folder = scratch / "model.onnx", scratch / "built"
            model.write_bytes(tiny_model.onnx_bytes())
            folder.mkdir()
            path = backend.build(model, folder, options)[0]
            # Of the others, `edgevit build` keeps only what it could open.
            found = msgspec.structs.replace(found, builds=backend.builds_on_device)
            with backend.open(path, threads=1, settings=options.settings) as session:
                answer = session.infer(tiny_model.example())
        if not np.allclose(answer, tiny_model.expected_logits(), atol=_TOLERANCE):
            raise VerificationError(f"{name} computes wrong answers on the {device}", remedy="install it again")
    except EdgeViTError as error:
        return msgspec.structs.replace(found, problem=error.message, remedy=error.remedy)
    return msgspec.structs.replace(found, builds=True, runs=True)


def _probe_on_gpu(name: str, *, elsewhere: ComputeCapability | None = None) -> Finding:
    """Take a model as far as it goes with the NVIDIA GPU at hand; ``elsewhere`` is one that needs not be there.

    Without a driver, which TensorRT itself may not survive, a backend says so before it begins.
    """
    gpu: dict[str, str] = {}
    try:
        device = CudaDevice(open_driver())
        gpu = {"device_name": device.name, "compute_capability": device.compute_capability}
    except MissingError:  # the backend says so again, where it needs one
        pass
    here = gpu.get("compute_capability")
    found = _probe_backend(name, "GPU", BuildOptions(compute_capability=here or elsewhere))
    if here and elsewhere and not found.builds:  # not for this GPU
        other = _probe_backend(name, "GPU", BuildOptions(compute_capability=elsewhere))
        found = msgspec.structs.replace(found, builds=other.builds)
    return msgspec.structs.replace(found, **gpu)


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
    **{name: partial(probe_engine, name) for name in BACKENDS},
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
