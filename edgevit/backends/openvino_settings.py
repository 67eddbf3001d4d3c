"""What OpenVINO can be opened with: EdgeViT's own settings, checked, and OpenVINO's properties."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from edgevit.backends.base import merge_settings
from edgevit.backends.pixels import IMAGES, INPUTS
from edgevit.errors import BundleError, MissingDependencyError, StorageError
from edgevit.files import cache_folder, sha256_of, storage_errors, write_atomically

#: Everything that can be set. DEVICE, INPUT and CACHE are EdgeViT's own; the others are OpenVINO's properties.
#:
#: How many values of a token share a range, where activations are quantized as they come; 0 leaves them float.
GROUP_SIZE = "DYNAMIC_QUANTIZATION_GROUP_SIZE"

#: By itself OpenVINO computes in BF16 on CPUs that can, and calls that float32: the precision is pinned. It also
#: quantizes activations as they come, where weights alone are integers, unless the group size is 0. NUM_STREAMS HINT
#: and INFERENCE_NUM_THREADS 0 leave the numbers to OpenVINO, as the hint says.
DEFAULTS: Final[Mapping[str, str]] = {
    "DEVICE": "CPU",
    "INPUT": IMAGES,
    "CACHE": "off",
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": "HINT",
    "INFERENCE_NUM_THREADS": "0",
    "INFERENCE_PRECISION_HINT": "f32",
    GROUP_SIZE: "0",
}
_OWN = ("DEVICE", "INPUT", "CACHE")

#: What each of them may be, where OpenVINO does not say so itself in words that help, and how to name that.
_VALUES: Final[Mapping[str, tuple[str, str]]] = {
    "DEVICE": (r"CPU|GPU(\.\d{1,2})?|NPU", "CPU, GPU or NPU"),
    "INPUT": ("|".join(INPUTS), " or ".join(INPUTS)),
    "CACHE": (r"on|off", "on or off"),
    "PERFORMANCE_HINT": (r"LATENCY|THROUGHPUT", "LATENCY or THROUGHPUT"),
    "NUM_STREAMS": (r"HINT|AUTO|[1-9]\d{0,2}", "HINT, AUTO or a number from 1 to 999"),
    "INFERENCE_NUM_THREADS": (r"\d{1,3}", "a number from 0 (OpenVINO's choice) to 999"),
}

#: What brings a device that OpenVINO does not find, on Debian and Ubuntu.
_DRIVERS: Final[Mapping[str, str]] = {
    "GPU": "sudo apt install intel-opencl-icd && sudo usermod -aG render $USER, then log in again",
    "NPU": "sudo snap install intel-npu-driver && sudo usermod -aG render $USER, then log in again",
}


def checked(given: Mapping[str, str]) -> dict[str, str]:
    """Return the settings ``given`` over those that are taken by themselves.

    Raises:
        BundleError: if one is not there, or has a value that it cannot have.

    """
    settings = merge_settings("openvino", DEFAULTS, given)
    for name, (pattern, choices) in _VALUES.items():
        if not re.fullmatch(pattern, settings[name]):
            raise BundleError(f"openvino's setting {name} cannot be '{settings[name]}'", remedy=f"use {choices}")
    return settings


def properties(given: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return OpenVINO's properties for the settings ``given``; ``threads`` above 0 overrides a setting.

    What is pinned by itself is pinned for the CPU: a GPU or an NPU takes what OpenVINO finds best for it.
    """
    settings = checked(given)
    if settings["DEVICE"] != "CPU":
        settings = {"PERFORMANCE_HINT": settings["PERFORMANCE_HINT"], **given}
    elif threads:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    left_to_openvino = {("NUM_STREAMS", "HINT"), ("INFERENCE_NUM_THREADS", "0")}
    return {
        name: value for name, value in settings.items() if name not in _OWN and (name, value) not in left_to_openvino
    }


def check_device(device: str, found: Collection[str]) -> None:
    """Check that ``device`` is one of those that OpenVINO has ``found``, such as CPU, GPU.0, GPU.1.

    Raises:
        MissingDependencyError: if it is not.

    """
    kind = device.partition(".")[0]
    if device in found or (device == kind and any(name.startswith(f"{kind}.") for name in found)):
        return
    others = [name for name in found if name.startswith(kind)]
    raise MissingDependencyError(
        f"OpenVINO finds no {device} here, but {', '.join(found) or 'nothing'}",
        remedy=f"use {' or '.join(others)}" if others else _DRIVERS.get(kind, "build for a target that is here"),
    )


class ModelCache:
    """A folder of the user's for what OpenVINO has compiled a model to, so that it starts sooner the next time.

    The folder belongs to the contents of the model's files, what it is compiled for and by which version: a model that
    was changed has another. By itself, OpenVINO goes by a file's name, size and age. What lies in the folder must have
    the SHA-256 that was noted when OpenVINO wrote it; OpenVINO would run most of what is damaged.
    """

    def __init__(self, model: Path, compiled_for: Mapping[str, str]) -> None:
        """Clear the cache for the IR or ONNX file ``model`` of whatever is not as it was written.

        Raises:
            StorageError: if the folder cannot be made or changed.

        """
        files = [path for path in dict.fromkeys((model, model.with_suffix(".bin"))) if path.is_file()]
        key = msgspec.json.encode([[sha256_of(path) for path in files], sorted(compiled_for.items())])
        self.folder = cache_folder() / "openvino" / sha256(key).hexdigest()
        try:
            with storage_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                for blob in self._blobs():
                    if not _is_as_written(blob):
                        _sum_of(blob).unlink(missing_ok=True)
                        blob.unlink(missing_ok=True)
        except StorageError as error:
            raise _cannot_be_kept(error) from error

    def note(self) -> None:
        """Note the SHA-256 of what OpenVINO has just written.

        Raises:
            StorageError: if that cannot be written.

        """
        try:
            for blob in self._blobs():
                if not _sum_of(blob).exists():
                    write_atomically(_sum_of(blob), sha256_of(blob).encode())
        except StorageError as error:
            raise _cannot_be_kept(error) from error

    def _blobs(self) -> list[Path]:
        return sorted(self.folder.glob("*.blob"))


def _sum_of(blob: Path) -> Path:
    return blob.with_suffix(".sha256")


def _is_as_written(blob: Path) -> bool:
    try:
        return _sum_of(blob).read_text(encoding="ascii", errors="replace") == sha256_of(blob)
    except FileNotFoundError:
        return False


def _cannot_be_kept(error: StorageError) -> StorageError:
    return StorageError(
        error.message,
        remedy="free space there, or name a folder that can be written to in $EDGEVIT_CACHE, or set CACHE to off",
    )
