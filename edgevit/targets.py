"""What EdgeViT builds for: one profile for each family of devices, in ``export/targets/``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgevit import resources
from edgevit.backends.base import BatchProfile, BuildOptions, ComputeCapability
from edgevit.bundle.manifest import Precision

BackendName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
Dialect = Literal["onnxruntime", "openvino", "portable", "tensorrt", "tensorrt-legacy"]

#: What x86 processors call instructions that multiply 8-bit integers and add up in 32 bits.
_VNNI = frozenset(("avx512_vnni", "avx_vnni"))
_CPUINFO = Path("/proc/cpuinfo")
_OR = "|"  # between the values that a setting may take


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A family of devices.

    ``precisions`` are those that can be made for it. ``dialect`` is the form of Q/DQ nodes that reaches the backend's
    integer kernels. ``weight_bits`` is 7 where 8 would overflow: on x86 processors without VNNI; "auto" looks at the
    one that EdgeViT runs on. ``settings`` are what the backend is opened with, for every precision alike, and
    ``settings_of`` what one precision needs beside them; ``f32|bf16`` leaves it to a race between both when the variant
    is built (``stages.tuning``). ``versions`` are those of the engine that serve the device, as
    in PEP 440 (``>=10.3,<10.4``); ``compute_capability`` is an NVIDIA GPU's, such as 8.7; ``workspace_mb`` is how much
    memory a build may take, in MiB; ``batch`` is what the variant is built for. ``why`` says where these choices come
    from.
    """

    description: str
    backend: BackendName
    dialect: Dialect
    precisions: tuple[Precision, ...]
    why: str
    weight_bits: Literal["auto", 7, 8] = "auto"
    settings: dict[str, str] = {}
    settings_of: dict[Precision, dict[str, str]] = {}
    versions: str | None = None
    compute_capability: ComputeCapability | None = None
    workspace_mb: Annotated[int, msgspec.Meta(ge=64)] | None = None
    batch: BatchProfile | None = None

    def build_options(self, precision: Precision) -> BuildOptions:
        """Return what the backend must know to build ``precision`` for this device."""
        return BuildOptions(
            settings=self.settings_for(precision),
            batch=self.batch,
            compute_capability=self.compute_capability,
            workspace_mb=self.workspace_mb,
        )

    def settings_for(self, precision: Precision) -> dict[str, str]:
        """Return what the backend is opened with for ``precision``; what is left open takes its first value."""
        return self.choices_for(precision)[0]

    def choices_for(self, precision: Precision) -> list[dict[str, str]]:
        """Return all settings that ``precision`` may have, the preferred ones first."""
        settings = self.settings | self.settings_of.get(precision, {})
        values = itertools.product(*(value.split(_OR) for value in settings.values()))
        return [dict(zip(settings, chosen, strict=True)) for chosen in values]

    def weight_bits_on(self, cpuinfo: Path = _CPUINFO) -> Literal[7, 8]:
        """Return how many bits INT8 weights take on the processor that the file ``cpuinfo`` describes.

        8 where there is no such file, or it has no x86 flags.
        """
        if self.weight_bits != "auto":
            return self.weight_bits
        try:
            lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return 8
        flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
        return 8 if flags is None or _VNNI.intersection(flags) else 7


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
