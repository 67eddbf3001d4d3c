"""What became of a model in an engine: each kernel, its types and the ONNX nodes that it came from.

The report is made when the engine is built and kept beside it (``kernels.json``): where the device is not at hand, an
engine cannot be asked again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from edgevit.backends.base import LinearKernel
from edgevit.errors import BundleError
from edgevit.files import write_atomically
from edgevit.json import JSONError, read

SCHEMA_VERSION = 1
KERNELS = "kernels.json"

Kind = Literal["gemm", "convolution", "attention", "reformat", "other"]

_REMEDY = "build this variant again"


class Kernel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kernel, in the order in which they run; ``inputs`` and ``outputs`` are types, constants aside.

    ``computes`` is the type that a product or attention multiplies in, None for other kinds; ``weight`` that of the
    largest constant. ``nodes`` are those of the ONNX file; one whose result a kernel
    only scales, or adds a bias to, counts too.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    computes: str | None
    weight: str | None
    nodes: tuple[str, ...]


class AttentionKernel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One attention: the type that its kernel takes, None if it is not one kernel but several."""

    name: str
    fused: str | None


class Counts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many kernels there are, of each kind that matters, by the type that they multiply in."""

    kernels: int
    gemms: dict[str, int]
    fused_attentions: dict[str, int]
    reformats: int


class KernelReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All kernels of an engine; ``warnings`` say what is slower than it could be, and why."""

    schema_version: int = SCHEMA_VERSION
    counts: Counts
    linears: tuple[LinearKernel, ...]
    attentions: tuple[AttentionKernel, ...]
    kernels: tuple[Kernel, ...]
    warnings: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write the report to ``path`` as JSON, whole or not at all.

        Raises:
            StorageError: if it cannot be written.

        """
        write_atomically(path, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def read_report(path: Path) -> KernelReport:
    """Read a report.

    Raises:
        BundleError: if it is missing, damaged, or of another version of EdgeViT.

    """
    try:
        report = read(path, KernelReport)
    except JSONError as error:
        raise BundleError(f"{path} is no report of kernels: {error}", remedy=_REMEDY) from error
    if report.schema_version != SCHEMA_VERSION:
        raise BundleError(f"{path} has version {report.schema_version}, not {SCHEMA_VERSION}", remedy=_REMEDY)
    return report
