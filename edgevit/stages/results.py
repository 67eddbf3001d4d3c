"""Results of the steps: typed, frozen, and as plain data by ``to_dict``, which ``--json`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgevit.bundle.manifest import Accuracy, Latency, Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import EdgeViTError
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.plan import LayerSensitivity


def _plain(data: object) -> dict[str, Any]:
    """Return ``data`` as JSON has it: paths as strings, structs and dataclasses as dictionaries."""
    plain: dict[str, Any] = msgspec.to_builtins(data, enc_hook=str)
    return plain


def path_of(bundle: Bundle, variant: Variant) -> Path:
    """Return the file of ``variant`` that an engine opens."""
    return bundle.path / variant.files[0].path


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """A new bundle.

    ``equal_to`` names what its float32 file was compared with, ``images`` on which images. ``notes`` say what had to be
    assumed of the source; ``unreadable`` are images that could not be read.
    """

    bundle: Bundle
    equal_to: tuple[str, ...]
    images: str
    notes: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit export --json`` prints."""
        variant = self.bundle.variant("float32")
        return _plain(
            {
                "bundle": self.bundle.path,
                "variants": [{"name": variant.name, "path": path_of(self.bundle, variant), "bytes": variant.bytes}],
                "unreadable": self.unreadable,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """A bundle with new variants, and what making them took: seconds of wall time, MiB at the most.

    ``float32_nodes`` are those that FP16 is no good for, with the reasons, ``sensitivity`` what each layer costs alone
    in INT8, the most sensitive first, where that was measured; ``failed`` are the variants that could not be made,
    while others were. ``unreadable`` are images that could not be read.
    """

    bundle: Bundle
    names: tuple[str, ...]
    seconds: float
    peak_rss_mb: float
    float32_nodes: Mapping[str, str] = field(default_factory=dict)
    sensitivity: Mapping[Scheme, tuple[LayerSensitivity, ...]] = field(default_factory=dict)
    failed: Mapping[str, EdgeViTError] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The new variants."""
        return tuple(self.bundle.variant(name) for name in self.names)

    @property
    def passed(self) -> bool:
        """Whether all were made, and kept the limit that they were to keep."""
        return not self.failed and all(variant.limit is None or variant.limit.passed for variant in self.variants)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit quantize --json`` and ``edgevit build --json`` print."""
        return _plain(
            {
                "variants": [
                    {
                        "name": variant.name,
                        "path": path_of(self.bundle, variant),
                        "bytes": variant.bytes,
                        "kernels": variant.kernels,
                        "fallback": variant.fallback,
                        "limit": variant.limit,
                    }
                    for variant in self.variants
                ],
                "float32_nodes": self.float32_nodes,
                "sensitivity": [
                    {"scheme": scheme, "layer": cost.layer, "kl": cost.kl, "sqnr_db": cost.sqnr_db}
                    for scheme, costs in self.sensitivity.items()
                    for cost in costs
                ],
                "seconds": self.seconds,
                "peak_rss_mb": self.peak_rss_mb,
                "unreadable": self.unreadable,
                "failed": failures(self.failed),
            }
        )


def failures(failed: Mapping[str, EdgeViTError]) -> list[dict[str, str]]:
    """Return which variants could not be made, why, and what to do about it."""
    return [{"name": name, "error": error.message, "remedy": error.remedy} for name, error in failed.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationResult:
    """The accuracy of variants against float32, as the bundle has it now."""

    bundle: Bundle
    names: tuple[str, ...]
    data: str
    unreadable: tuple[str, ...] = ()

    @property
    def accuracies(self) -> Mapping[str, Accuracy]:
        """What was measured, by variant."""
        found = {name: self.bundle.variant(name).accuracy for name in self.names}
        return {name: accuracy for name, accuracy in found.items() if accuracy is not None}

    @property
    def images(self) -> int:
        """How many images that was measured on."""
        return next(iter(self.accuracies.values())).images

    @property
    def passed(self) -> bool:
        """Whether no variant lost more than the limit."""
        return all(accuracy.passed for accuracy in self.accuracies.values())

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit validate --json`` prints."""
        measured = self.accuracies
        return _plain(
            {
                "data": self.data,
                "images": self.images,
                "unreadable": self.unreadable,
                "variants": [
                    _head(self.bundle.variant(name)) | msgspec.to_builtins(accuracy)
                    for name, accuracy in measured.items()
                ],
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """The latency of variants on this machine, as the bundle has it now."""

    bundle: Bundle
    names: tuple[str, ...]

    @property
    def latencies(self) -> Mapping[str, Latency]:
        """What was measured, by variant."""
        found = {name: self.bundle.variant(name).latency for name in self.names}
        return {name: latency for name, latency in found.items() if latency is not None}

    @property
    def passed(self) -> bool:
        """Whether every variant ran."""
        return all(latency.p50_ms is not None for latency in self.latencies.values())

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit benchmark --json`` prints."""
        return _plain(
            {
                "environment": next(latency.environment for latency in self.latencies.values()),
                "variants": [self._entry(name) for name in self.names],
            }
        )

    def _entry(self, name: str) -> dict[str, object]:
        variant = self.bundle.variant(name)
        kernels = msgspec.to_builtins(variant.kernels) or {}
        latency = msgspec.to_builtins(variant.latency) or {}
        latency.pop("environment", None)
        return _head(variant) | latency | {key: kernels.get(key) for key in ("linears", "integer_linears")}


def _head(variant: Variant) -> dict[str, object]:
    return {"name": variant.name, "precision": variant.precision, "backend": variant.backend}
