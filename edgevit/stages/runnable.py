"""Which variants of a bundle are for this machine."""

from __future__ import annotations

from collections.abc import Sequence

from edgevit.backends.variants import why_not_here
from edgevit.bundle.store import Bundle
from edgevit.errors import MissingDependencyError
from edgevit.progress import Progress


def runnable(bundle: Bundle, names: Sequence[str], progress: Progress) -> tuple[str, ...]:
    """Return those of the variants ``names`` (all if there are none) that can be run, and say which are left out.

    Raises:
        BundleError: if there is no such variant.
        MissingDependencyError: if none can be run.
    """
    variants = [bundle.variant(name) for name in dict.fromkeys(names)] or list(bundle.manifest.variants)
    reasons = {variant.name: why_not_here(bundle, variant) for variant in variants}
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
