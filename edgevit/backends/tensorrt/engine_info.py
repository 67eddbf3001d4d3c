"""What is known of an engine, in ``engine.json`` beside it; never in a header of the engine itself.

TensorRT checks an engine's own header too, but only says that it does not fit, and an early version may take what it
should not. The file may come from anywhere, so nothing in it is believed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgevit.backends.base import BatchProfile, ComputeCapability
from edgevit.backends.tensorrt.bindings import NAMES, Bindings, Flavour, version_numbers
from edgevit.backends.tensorrt.settings import TensorRTSettings
from edgevit.bundle.manifest import Precision
from edgevit.bundle.scalars import Sha256
from edgevit.errors import BundleError
from edgevit.files import sha256_of
from edgevit.json_file import JSONFile

ENGINE, SIDECAR, SOURCE = "model.engine", "engine.json", "model.onnx"

_AMPERE = (8, 0)
_REMEDY = "build this variant again"


class EngineInfo(JSONFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an engine was built with and for, and from which ONNX file, which lies beside it.

    ``driver`` is what built it: the Python bindings, or the program trtexec.
    """

    what = "description of an engine"
    schema = 1
    remedy = _REMEDY
    most_bytes = 1 << 16  # a real one has less than 1 kB

    schema_version: int = 1
    flavour: Flavour
    version: Annotated[str, msgspec.Meta(pattern=r"\A\d{1,4}(\.\d{1,6}){1,3}\Z")]
    driver: Literal["python", "trtexec"]
    compute_capability: ComputeCapability
    batch: BatchProfile
    precision: Precision | None
    settings: dict[str, str]
    engine_sha256: Sha256
    source_sha256: Sha256


def read_info(engine: Path) -> EngineInfo:
    """Return what is known of the file ``engine``, after a check that it is of that very file.

    Raises:
        BundleError: if one of the two files is missing, damaged, or not of the other.

    """
    path = engine.with_name(SIDECAR)
    try:
        info = EngineInfo.load(path)
        digest = sha256_of(engine)
    except OSError as error:
        raise BundleError(f"{error.filename} cannot be read: {error.strerror}", remedy=_REMEDY) from error
    if digest != info.engine_sha256:
        raise BundleError(f"{engine} is damaged: it is not the engine that {path.name} tells of", remedy=_REMEDY)
    return info


def check_source(info: EngineInfo, engine: Path) -> Path:
    """Return the ONNX file that ``engine`` was built from.

    Raises:
        BundleError: if it is missing or another.

    """
    source = engine.with_name(SOURCE)
    if not source.is_file() or sha256_of(source) != info.source_sha256:
        raise BundleError(f"{source}, which the engine was built from, is missing or another", remedy=_REMEDY)
    return source


def incompatible_reason(
    info: EngineInfo, bindings: Bindings, compute_capability: str, settings: TensorRTSettings
) -> str | None:
    """Return why an engine does not run with ``bindings`` on a GPU of ``compute_capability``; None if it does."""
    if info.flavour != bindings.flavour:
        return f"it is an engine of {NAMES[info.flavour]}, and this is {NAMES[bindings.flavour]}"
    if info.version != bindings.version and not (settings.host_code == "yes" and _is_later(info, bindings.version)):
        return f"it was built with {NAMES[info.flavour]} {info.version}, and this is {bindings.version}"
    if info.compute_capability != compute_capability and not _serves(info, compute_capability):
        return f"it was built for compute capability {info.compute_capability}, and this GPU has {compute_capability}"
    return None


def _is_later(info: EngineInfo, version: str) -> bool:
    """Say whether ``version`` is a later one of the same major version, for which the engine brings what it needs."""
    built, here = version_numbers(info.version), version_numbers(version)
    return info.settings.get("version_compatible") == "yes" and built[0] == here[0] and built <= here


def _serves(info: EngineInfo, compute_capability: str) -> bool:
    """Say whether the engine was built for all GPUs from Ampere on, and this is one."""
    built, here = version_numbers(info.compute_capability), version_numbers(compute_capability)
    return info.settings.get("hardware_compatibility") == "ampere+" and min(built, here) >= _AMPERE
