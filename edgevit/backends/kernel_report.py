"""What became of a model in an engine: each kernel, its types and the ONNX nodes that it came from.

The report is made when the engine is built and kept beside it (``kernels.json``): where the device is not at hand, an
engine cannot be asked again.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgevit.backends.base import LinearKernel
from edgevit.json_file import JSONFile

KERNELS = "kernels.json"

KernelKind = Literal["gemm", "convolution", "attention", "reformat", "other"]

_REMEDY = "build this variant again"


class Kernel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kernel, in the order in which they run; ``inputs`` and ``outputs`` are types, constants aside.

    ``computes`` is the type that a product or attention multiplies in, None for other kinds; ``weight`` that of the
    largest constant. ``nodes`` are those of the ONNX file; one whose result a kernel
    only scales, or adds a bias to, counts too.
    """

    name: str
    kind: KernelKind
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


class KernelReport(JSONFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All kernels of an engine; ``warnings`` say what is slower than it could be, and why."""

    what = "report of kernels"
    schema = 1
    remedy = _REMEDY

    schema_version: int = 1
    counts: Counts
    linears: tuple[LinearKernel, ...]
    attentions: tuple[AttentionKernel, ...]
    kernels: tuple[Kernel, ...]
    warnings: tuple[str, ...]

    def integer_nodes(self) -> frozenset[str]:
        """Return the names of the nodes that kernels which multiply in INT8 compute."""
        return frozenset(name for kernel in self.kernels if kernel.computes == "int8" for name in kernel.nodes)
