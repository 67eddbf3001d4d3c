"""``edgevit verify``: whether this machine gives the answers that were checked where the bundle was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from edgevit.backends.variants import backend_for, unsupported_reason
from edgevit.brief import printed
from edgevit.bundle.golden import Golden
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, EdgeViTError, MissingError
from edgevit.progress import SILENT, Progress
from edgevit.runtime import load
from edgevit.runtime.verification import golden_figures

if TYPE_CHECKING:
    from edgevit.bundle.signature import TrustedKey

Status = Literal["as exported", "differs", "fails", "not run here"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantVerification:
    """How a variant answers to the golden images on this machine.

    ``difference`` is the largest of a number from float32's where the bundle was made, ``cosine`` and ``agreement`` are
    with these; ``tolerance`` says in words what passes. Figures are None where they mean nothing or it did not run.
    ``reason`` says why it did not, or what is too far off; None where all is well.
    """

    name: str
    precision: str
    backend: str
    settings: dict[str, str]
    status: Status
    version: str | None = None
    difference: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    tolerance: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationResult:
    """What ``verify`` found. ``signed_by`` is the trusted key that signed it, None where none was asked for."""

    path: Path
    images: int
    variants: tuple[VariantVerification, ...]
    signed_by: str | None
    damaged: tuple[str, ...]

    __repr__ = printed

    @property
    def passed(self) -> bool:
        """Whether all that could be run here answers as it should, something could, and no file is damaged."""
        ran = [each for each in self.variants if each.status != "not run here"]
        return bool(ran) and all(each.status == "as exported" for each in ran) and not self.damaged

    @property
    def none_runs(self) -> bool:
        """Whether nothing could be run here."""
        return all(each.status == "not run here" for each in self.variants)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit verify --json`` prints."""
        found: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        return found | {"passed": self.passed}


def verify(
    path: Path,
    *,
    variants: Sequence[str] = (),
    trusted_keys: Sequence[TrustedKey] | None = None,
    progress: Progress = SILENT,
) -> VerificationResult:
    """Check the files of the bundle or pack at ``path``, and run ``variants``, all if none are named, on its images.

    Each is loaded as an application loads it. What cannot be run here, such as an engine for another device, is said
    and is no failure, as long as something can.

    Raises:
        BundleError: if it is no bundle, its golden images are damaged, or there is no such variant.
        VerificationError: if no trusted key has signed it.
        InputError: if a trusted key is none.

    """
    bundle = Bundle.open(path, trusted_keys=trusted_keys)
    chosen = [bundle.variant(name) for name in dict.fromkeys(variants)] or list(bundle.manifest.variants)
    golden = bundle.golden()
    found = tuple(
        _verified(bundle, variant, golden, progress)
        for variant in progress.track(chosen, total=len(chosen), label="Verifying")
    )
    return VerificationResult(
        path=path,
        images=len(golden.images),
        variants=found,
        signed_by=bundle.signed_by,
        damaged=tuple(_damaged(bundle)),
    )


def _verified(bundle: Bundle, variant: Variant, golden: Golden, progress: Progress) -> VariantVerification:
    def result(status: Status, **figures: Any) -> VariantVerification:  # noqa: ANN401
        return VariantVerification(
            name=variant.name,
            precision=variant.precision,
            backend=variant.backend,
            settings=variant.settings,
            status=status,
            **figures,
        )

    try:
        if (reason := unsupported_reason(bundle, variant)) is not None:
            return result("not run here", reason=reason)
        version = backend_for(variant).version()
        with load(bundle.path, variant=variant.name, check="files", progress=progress) as model:
            answers = model.infer_images(golden.images)
            figures = golden_figures(
                answers,
                golden.logits,
                precision=variant.precision,
                classes=bundle.manifest.classes,
                independent=model.independent,
                outputs=model.output_types,
            )
    except MissingError as error:
        return result("not run here", reason=f"{error.message} ({error.remedy})")
    except EdgeViTError as error:
        return result("fails", reason=error.message)
    return result(
        "as exported" if figures.problem is None else "differs",
        version=version,
        difference=figures.difference,
        cosine=figures.cosine,
        agreement=figures.agreement,
        tolerance=figures.tolerance,
        reason=figures.problem,
    )


def _damaged(bundle: Bundle) -> Iterator[str]:
    """Yield what is wrong with files that are no variant's: calibration and report."""
    for file in bundle.manifest.extra:
        try:
            bundle.verified([file])
        except BundleError as error:  # noqa: PERF203 - each is looked at
            yield error.message
