"""What a bundle says of itself: ``manifest.json``, typed and versioned."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edgevit.data.preprocess import Preprocess
from edgevit.models.spec import ModelSpec

SCHEMA_VERSION = 1

#: int8 is static, with ranges from calibration images; int8-dynamic finds them as it runs; int8-weights and
#: int4-weights are files of small weights, whose activations are float, or in what the engine finds fast.
Precision = Literal["float32", "fp16", "int8", "int8-dynamic", "int8-weights", "int4-weights"]
#: Those whose Linear layers must run in integers.
INTEGER_PRECISIONS: tuple[Precision, ...] = ("int8", "int8-dynamic")

#: Forward slashes, and names that are the same on every file system; no absolute path, no "..", nothing hidden.
RelativePath = Annotated[
    str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\Z", max_length=512)
]
#: Names a folder, and has no dot: the store puts one between the name and a number.
FolderName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9_-]*\Z", max_length=128)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Bytes = Annotated[int, msgspec.Meta(ge=0)]


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle: its path relative to the bundle, with forward slashes, and what is in it."""

    path: RelativePath
    sha256: Sha256
    bytes: Bytes


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
    signal to quantization noise ratio, None for float32 itself. Both are None where a logit is not a finite number.
    ``passed`` is the gate's verdict for a drop of at most ``max_drop`` percentage points, ``reason`` why, in a line.
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
    kl: float | None
    sqnr_db: float | None
    max_drop: float
    passed: bool
    reason: str


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast a variant is: milliseconds per batch, images per second, MiB.

    ``speedup_vs_float32`` is the median of the ratios of interleaved blocks, float32 on the same backend, with its
    bootstrap interval. A figure that could not be measured is None; then ``valid`` is False and ``invalid_reason``
    says why.
    """

    batch: int
    threads: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    throughput_ips: float | None
    speedup_vs_float32: float | None
    speedup_ci95: tuple[float, float] | None
    rss_mb: float | None
    cold_start_ms: float | None
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

    ``files`` share a folder, called ``name`` or ``name.2``; the first is the one that the backend opens. ``settings``
    are what the backend must be opened with to do what was measured, such as OpenVINO's precision hint.
    """

    name: FolderName
    precision: Precision
    backend: str
    target: str
    files: Annotated[tuple[File, ...], msgspec.Meta(min_length=1)]
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
