"""What a bundle says of itself: ``manifest.json``, typed and versioned."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgevit.data.preprocess import Preprocess
from edgevit.models.spec import ModelSpec

SCHEMA_VERSION = 1

Precision = Literal["float32", "fp16", "int8"]


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle: its path relative to the bundle, with forward slashes, and what is in it."""

    path: str
    sha256: str
    bytes: int


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where something was measured."""

    machine: str
    cpu: str
    cpu_features: tuple[str, ...]
    cores: int
    os: str
    python: str
    packages: dict[str, str]
    measured_at: str


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variant against float32 on the same images; rates in 0..1, ``delta_top1`` negative when the variant is worse.

    ``top1``, ``top5``, ``delta_top1`` and ``mcnemar_p`` are None where the images have no labels. ``agreement`` is the
    share of images with float32's top-1; ``kl`` the mean KL(float32 || variant) in nats; ``sqnr_db`` the logits'
    signal to quantization noise ratio, None for float32 itself.
    """

    data: str
    data_sha256: str
    images: int
    top1: float | None
    top1_ci95: tuple[float, float] | None
    top5: float | None
    delta_top1: float | None
    mcnemar_p: float | None
    agreement: float
    kl: float
    sqnr_db: float | None
    passed: bool


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast a variant is: milliseconds per batch, images per second, MiB.

    ``speedup_vs_float32`` is the median of the ratios of interleaved blocks, float32 on the same backend, with its
    bootstrap interval.
    """

    batch: int
    threads: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput_ips: float
    speedup_vs_float32: float
    speedup_ci95: tuple[float, float]
    rss_mb: float
    cold_start_ms: float
    valid: bool
    invalid_reason: str | None
    environment: Environment


class Kernels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which arithmetic the backend runs a variant's Linear layers in, read from its optimised graph."""

    linears: int
    integer_linears: int
    float_linears: tuple[str, ...]


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One precision of the model for one backend: its files, and what was measured on them.

    ``files`` are in the folder ``name``; the first is the one that the backend opens. ``settings`` are what the
    backend must be opened with to do what was measured, such as OpenVINO's precision hint.
    """

    name: str
    precision: Precision
    backend: str
    target: str
    files: tuple[File, ...]
    settings: dict[str, str] = {}
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    kernels: Kernels | None = None

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a model came from and what it was exported with."""

    source: str
    weights_sha256: str
    edgevit: str
    packages: dict[str, str]
    created_at: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a bundle except the contents of its files.

    ``golden`` are image files (PNG) and, last, ``golden/logits.npy`` (images, classes): float32's logits for them.
    ``extra`` are further files, such as the calibration table and the plan.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    spec: ModelSpec
    preprocess: Preprocess
    labels: tuple[str, ...]
    provenance: Provenance
    variants: tuple[Variant, ...]
    golden: tuple[File, ...] = ()
    extra: tuple[File, ...] = ()
