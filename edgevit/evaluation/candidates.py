"""What is timed, and which float32 variant each is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevit.backends import backend_class
from edgevit.backends.variants import settings_of
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A file to time; ``baseline`` names the candidate that it is compared with, itself for float32."""

    name: str
    backend: str
    model: Path
    settings: Mapping[str, str]
    baseline: str


def baseline_of(variant: Variant, variants: Sequence[Variant]) -> Variant | None:
    """Return the float32 variant to compare with: on the same backend, if possible for the same target.

    Else one that was built for any, which is faster than the exported file. A backend without float32, such as
    TensorRT's, is compared with the exported file, which is onnxruntime's.
    """
    if variant.precision == "float32":
        return variant
    every = [other for other in variants if other.precision == "float32"]
    same = [other for other in every if other.backend == variant.backend] or every[:1]
    return next((other for other in same if other.target == variant.target), same[-1] if same else None)


def candidates_of(bundle: Bundle, names: Sequence[str] = ()) -> list[Candidate]:
    """Return the variants called ``names`` (all if none), and the float32 ones to compare them with, files verified.

    Raises:
        BundleError: if there is no such variant, no float32 to compare with, or a file is damaged.

    """
    variants = bundle.manifest.variants
    wanted: dict[str, str] = {}
    for variant in [bundle.variant(name) for name in names] or variants:
        baseline = baseline_of(variant, variants)
        if baseline is None:
            raise BundleError(
                f"there is no float32 variant to compare '{variant.name}' with",
                remedy="make the bundle again with edgevit export, or name the variants to time with --variant",
            )
        wanted |= {variant.name: baseline.name, baseline.name: baseline.name}
    return [
        Candidate(
            name=variant.name,
            backend=variant.backend,
            model=bundle.verify_files(variant.name, backend_class(variant.backend).formats),
            settings=settings_of(variant, {}),
            baseline=wanted[variant.name],
        )
        for variant in variants
        if variant.name in wanted
    ]
