"""What EdgeViT builds for: one profile for each family of devices, in ``export/targets/``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from edgevit import resources
from edgevit.bundle.manifest import Precision

BackendName = Literal["onnxruntime", "openvino"]
Dialect = Literal["portable", "onnxruntime", "openvino"]


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A family of devices.

    ``precisions`` are raced against each other, and the fastest that stays accurate wins. ``dialect`` is the form of
    Q/DQ nodes that reaches the backend's integer kernels. ``settings`` are what the backend is opened with, for every
    precision alike. ``why`` says where these choices come from.
    """

    description: str
    backend: BackendName
    dialect: Dialect
    precisions: tuple[Precision, ...]
    why: str
    settings: dict[str, str] = {}


def _place() -> Path:
    return resources.folder("export") / "targets"


def target_names() -> list[str]:
    """Return the names of the targets that come with EdgeViT."""
    return resources.names(_place())


def load_target(name: str) -> Target:
    """Return the target called ``name``, or the one in the TOML file whose path ``name`` is.

    Raises:
        InputError: if there is none, or its profile is not valid; the message names the file and the field.

    """
    return resources.read("target", _place(), name, Target)
