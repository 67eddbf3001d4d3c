"""Which variants of a bundle can run on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from edgevit.backends.variants import backend_for, unsupported_reason
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import MissingDependencyError
from edgevit.progress import Progress


def runnable(bundle: Bundle, names: Sequence[str], progress: Progress) -> tuple[str, ...]:
    """Return those of the variants ``names`` (all if there are none) that can be run, and say which are left out.

    A variant whose engine is not installed, or in another version than serves it, is left out where no names are given.
    Asked for by name, it is an error.

    Raises:
        BundleError: if there is no such variant.
        MissingDependencyError: if none can be run, or not one that is asked for by name.
    """
    variants = [bundle.variant(name) for name in dict.fromkeys(names)] or list(bundle.manifest.variants)
    reasons = {variant.name: _unrunnable_reason(bundle, variant, by_name=bool(names)) for variant in variants}
    for name, reason in reasons.items():
        if reason is not None:
            progress.note(f"Leaving out {name}: {reason}")
    found = tuple(name for name, reason in reasons.items() if reason is None)
    if not found:
        raise MissingDependencyError(
            f"{', '.join(reasons)} cannot be run here: {'; '.join(dict.fromkeys(filter(None, reasons.values())))}",
            remedy="run this on the device, or name a variant for another backend with --variant, or none for all",
        )
    return found


def _unrunnable_reason(bundle: Bundle, variant: Variant, *, by_name: bool) -> str | None:
    """Return why ``variant`` cannot be run here, and what to type; None if it can."""
    reason = unsupported_reason(bundle, variant)  # first: TensorRT without a driver may end the process
    if reason is not None:
        return reason
    try:
        backend_for(variant)
    except MissingDependencyError as error:
        if by_name:
            raise
        return f"{error.message} ({error.remedy})"
    return None
