"""Opens a variant of a bundle with its backend."""

from __future__ import annotations

from edgevit.backends import get_backend
from edgevit.backends.base import Session
from edgevit.bundle.store import Bundle


def open_variant(bundle: Bundle, name: str, *, threads: int = 0) -> Session:
    """Load a variant as it was built and measured, after a check of its files; ``threads`` 0 leaves their number.

    Raises:
        BundleError: if there is no such variant, or its files are damaged.
        MissingDependencyError: if its backend is not installed.

    """
    variant = bundle.variant(name)
    path = bundle.verify_files(name)
    return get_backend(variant.backend).open(path, threads=threads, settings=variant.settings)
