"""Results of the steps: typed, frozen, and as plain data by ``to_dict``, which ``--json`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgevit.brief import printed
from edgevit.bundle.manifest import Accuracy, Latency, Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import DoesNotPayError, EdgeViTError
from edgevit.evaluation.accuracy_details import AccuracyDetails
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.plan import LayerSensitivity
from edgevit.report.arithmetic import share_missed, share_wanted
from edgevit.stages.accuracy_details import read_details
from edgevit.stages.host_result import HostResult, all_passed, of_hosts

_NONE: Mapping[str, EdgeViTError] = {}


def integer_share(variant: Variant) -> float | None:
    """Return the share of the multiply-adds of ``variant`` that run in integers, in 0..1; None if it is not known."""
    return None if variant.kernels is None else variant.kernels.integer_share


def shares_missed(
    variants: Iterable[Variant], least: float | None, failed: Mapping[str, EdgeViTError] = _NONE
) -> dict[str, str]:
    """Say which of ``variants`` have fewer of their multiply-adds in integers than ``least``, in 0..1, and why.

    Of ``failed`` those that do not pay have none.
    """
    missed = {variant.name: said for variant in variants if (said := share_missed(variant, least)) is not None}
    if least is None:
        return missed
    return missed | {each["name"]: f"it is not made, {share_wanted(least)} wanted" for each in without_pay(failed)}


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

    __repr__ = printed

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
    in INT8, the most sensitive first, where that was measured; ``failed`` are the variants that were not made, while
    others were: they could not be, or would not pay (see ``really_failed``). ``refused`` are those that were made, but
    which ``load`` refuses, with what is wrong with their answers to the golden images. ``min_integer_share`` is what
    INT8 must reach, in 0..1. ``unreadable`` are images that could not be read.
    """

    bundle: Bundle
    names: tuple[str, ...]
    seconds: float
    peak_rss_mb: float
    float32_nodes: Mapping[str, str] = field(default_factory=dict)
    sensitivity: Mapping[Scheme, tuple[LayerSensitivity, ...]] = field(default_factory=dict)
    failed: Mapping[str, EdgeViTError] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    min_integer_share: float | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    __repr__ = printed

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The new variants."""
        return tuple(self.bundle.variant(name) for name in self.names)

    @property
    def passed(self) -> bool:
        """Whether all were made that pay, and kept the limits that they were to keep."""
        kept = all(variant.limit is None or variant.limit.passed for variant in self.variants)
        return kept and not really_failed(self.failed) and not self.shares_missed

    @property
    def shares_missed(self) -> Mapping[str, str]:
        """Why variants have too few of their multiply-adds in integers, by their names."""
        return shares_missed(self.variants, self.min_integer_share, self.failed)

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
                        "integer_share": integer_share(variant),
                        "fallback": variant.fallback,
                        "limit": variant.limit,
                        "convolution_stages": variant.convolution_stages,
                        "token_merging": variant.token_merging,
                        "token_padding": variant.token_padding,
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
                "does_not_pay": without_pay(self.failed),
                "refused": self.refused,
                "shares_missed": self.shares_missed,
            }
        )


def really_failed(failed: Mapping[str, EdgeViTError]) -> Mapping[str, EdgeViTError]:
    """Return those of the variants that were not made whose engine is not just better off with float32."""
    return {name: error for name, error in failed.items() if not isinstance(error, DoesNotPayError)}


def raise_first(failed: Mapping[str, EdgeViTError]) -> None:
    """Raise the first of the errors because of which variants were not made, if one really failed."""
    for error in really_failed(failed).values():
        raise error


def failures(failed: Mapping[str, EdgeViTError]) -> list[dict[str, str]]:
    """Return which variants could not be made, why, and what to do about it."""
    return _said(really_failed(failed))


def without_pay(failed: Mapping[str, EdgeViTError]) -> list[dict[str, str]]:
    """Return which variants were not made because they do not pay, how that shows, and what to use."""
    return _said({name: error for name, error in failed.items() if isinstance(error, DoesNotPayError)})


def _said(failed: Mapping[str, EdgeViTError]) -> list[dict[str, str]]:
    return [{"name": name, "error": error.message, "remedy": error.remedy} for name, error in failed.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationResult:
    """The accuracy of variants against float32, as the bundle has it now.

    Where other devices measured, ``hosts`` say what came of that, and this machine has measured nothing.
    """

    bundle: Bundle
    names: tuple[str, ...]
    data: str
    unreadable: tuple[str, ...] = ()
    min_integer_share: float | None = None
    hosts: tuple[HostResult, ...] = ()

    __repr__ = printed

    @property
    def accuracies(self) -> Mapping[str, Accuracy]:
        """What was measured, by variant."""
        found = {name: self.bundle.variant(name).accuracy for name in self.names}
        return {name: accuracy for name, accuracy in found.items() if accuracy is not None}

    @property
    def details(self) -> Mapping[str, AccuracyDetails]:
        """What lies behind the figures, by variant; a pack keeps none."""
        kept = {} if self.bundle.pack is not None else read_details(self.bundle).details
        return {name: kept[name] for name in self.names if name in kept}

    @property
    def images(self) -> int:
        """How many images that was measured on."""
        return next((accuracy.images for accuracy in self.accuracies.values()), 0)

    @property
    def passed(self) -> bool:
        """Whether no variant lost more than the limit, and each has enough of its multiply-adds in integers."""
        return (
            all_passed(self.hosts)
            and all(accuracy.passed for accuracy in self.accuracies.values())
            and not self.shares_missed
        )

    @property
    def shares_missed(self) -> Mapping[str, str]:
        """Why variants have too few of their multiply-adds in integers, by their names."""
        return shares_missed([self.bundle.variant(name) for name in self.names], self.min_integer_share)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit validate --json`` prints."""
        if self.hosts:
            return of_hosts(self.hosts)
        measured = self.accuracies
        details = {name: each.to_dict() for name, each in self.details.items()}
        return _plain(
            {
                "data": self.data,
                "images": self.images,
                "unreadable": self.unreadable,
                "shares_missed": self.shares_missed,
                "variants": [
                    _head(self.bundle.variant(name)) | msgspec.to_builtins(accuracy) | {"details": details.get(name)}
                    for name, accuracy in measured.items()
                ],
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """The latency of variants on this machine, as the bundle has it now; ``hosts`` are as in ``ValidationResult``."""

    bundle: Bundle
    names: tuple[str, ...]
    hosts: tuple[HostResult, ...] = ()

    __repr__ = printed

    @property
    def latencies(self) -> Mapping[str, Latency]:
        """What was measured, by variant."""
        found = {name: self.bundle.variant(name).latency for name in self.names}
        return {name: latency for name, latency in found.items() if latency is not None}

    @property
    def passed(self) -> bool:
        """Whether every variant ran."""
        return all_passed(self.hosts) and all(latency.p50_ms is not None for latency in self.latencies.values())

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit benchmark --json`` prints."""
        if self.hosts:
            return of_hosts(self.hosts)
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
    known: dict[str, object] = {"name": variant.name, "precision": variant.precision, "backend": variant.backend}
    return known | {"integer_share": integer_share(variant)}
