"""A summary of a bundle, for people and scripts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgevit.bundle.manifest import (
    Accuracy,
    ConvolutionStage,
    Fallback,
    File,
    Kernels,
    Latency,
    LimitVerdict,
    MeasuredDevice,
    Precision,
    Provenance,
    TokenMerging,
    TokenPadding,
)
from edgevit.bundle.reading import all_files, logical_path
from edgevit.bundle.store import Bundle
from edgevit.data.preprocess import Preprocess
from edgevit.errors import BundleError
from edgevit.models.outputs import Output
from edgevit.models.spec import AnySpec, OutputActivation


class VariantSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One variant; ``path`` is the file that its backend opens, ``problem`` what is wrong with its files, if so."""

    name: str
    precision: Precision
    backend: str
    target: str
    path: str
    bytes: int
    settings: dict[str, str]
    problem: str | None
    accuracy: Accuracy | None
    latency: Latency | None
    kernels: Kernels | None
    integer_share: float | None
    fallback: tuple[Fallback, ...]
    limit: LimitVerdict | None
    convolution_stages: tuple[ConvolutionStage, ...]
    token_merging: TokenMerging | None
    token_padding: TokenPadding | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle; ``bytes`` is the size of all its files.

    ``problems`` say what is wrong with files that are no variant's: golden images, calibration, report.
    """

    path: str
    name: str
    schema_version: int
    bytes: int
    spec: AnySpec
    preprocess: Preprocess
    labels: tuple[str, ...]
    activation: OutputActivation
    outputs: tuple[Output, ...]
    provenance: Provenance
    golden_images: int
    variants: tuple[VariantSummary, ...]
    devices: tuple[MeasuredDevice, ...]
    extra: tuple[str, ...]
    problems: tuple[str, ...]


def summary(bundle: Bundle) -> Summary:
    """Return what is in ``bundle``; every file is read, to say whether it is damaged."""
    manifest = bundle.manifest
    return Summary(
        path=str(bundle.path),
        name=manifest.name,
        schema_version=manifest.schema_version,
        bytes=sum(file.bytes for file in all_files(manifest)),
        spec=manifest.model,
        preprocess=manifest.preprocess,
        labels=manifest.outcomes,
        activation="sigmoid" if manifest.independent else "softmax",
        outputs=manifest.typed_outputs,
        provenance=manifest.provenance,
        golden_images=max(0, len(manifest.golden) - 1),
        variants=tuple(_variant(bundle, variant.name) for variant in manifest.variants),
        devices=manifest.devices,
        extra=tuple(logical_path(file) for file in manifest.extra),
        problems=tuple(
            problem for file in (*manifest.golden, *manifest.extra) if (problem := _damage_reason(bundle, [file]))
        ),
    )


def _variant(bundle: Bundle, name: str) -> VariantSummary:
    variant = bundle.variant(name)
    return VariantSummary(
        name=name,
        precision=variant.precision,
        backend=variant.backend,
        target=variant.target,
        path=str(bundle.path / variant.files[0].path),
        bytes=variant.bytes,
        settings=variant.settings,
        problem=_damage_reason(bundle, variant.files),
        accuracy=variant.accuracy,
        latency=variant.latency,
        kernels=variant.kernels,
        integer_share=None if variant.kernels is None else variant.kernels.integer_share,
        fallback=variant.fallback,
        limit=variant.limit,
        convolution_stages=variant.convolution_stages,
        token_merging=variant.token_merging,
        token_padding=variant.token_padding,
    )


def _damage_reason(bundle: Bundle, files: Sequence[File]) -> str | None:
    """Return why ``files`` are not those that the manifest lists; None if they are."""
    try:
        bundle.verified(files)
    except BundleError as error:
        return error.message
    return None
