"""Which variants of a bundle can be run by this EdgeViT at all."""

from __future__ import annotations

from collections.abc import Sequence

from edgevit.backends import BACKENDS
from edgevit.bundle.store import Bundle
from edgevit.errors import InputError
from edgevit.progress import Progress


def runnable(bundle: Bundle, names: Sequence[str], progress: Progress) -> tuple[str, ...]:
    """Return those of the variants ``names`` (all if there are none) that can be run, and say which are left out.

    Raises:
        BundleError: if there is no such variant.
        InputError: if none can be run.
    """
    variants = [bundle.variant(name) for name in dict.fromkeys(names)] or list(bundle.manifest.variants)
    for variant in variants:
        if variant.backend not in BACKENDS:
            progress.note(f"Leaving out {variant.name}: {variant.backend} runs on the device, not here")
    found = tuple(variant.name for variant in variants if variant.backend in BACKENDS)
    if not found:
        raise InputError(
            f"{', '.join(variant.name for variant in variants)} cannot be run here",
            remedy="name a variant for another backend with --variant, or none for all",
        )
    return found
