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

    ``precisions`` are those that can be made for it. ``dialect`` is the form of Q/DQ nodes that reaches the backend's
    integer kernels. ``settings`` are what the backend is opened with, for every precision alike, and ``settings_of``
    what one precision needs beside them. ``why`` says where these choices come from.
    """

    description: str
    backend: BackendName
    dialect: Dialect
    precisions: tuple[Precision, ...]
    why: str
    settings: dict[str, str] = {}
    settings_of: dict[Precision, dict[str, str]] = {}

    def settings_for(self, precision: Precision) -> dict[str, str]:
        """Return what the backend is opened with for ``precision``."""
        return self.settings | self.settings_of.get(precision, {})


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
