"""Opens a variant of a bundle with its backend."""

from __future__ import annotations

from edgevit.backends import get_backend
from edgevit.backends.base import Backend, Session
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError
from edgevit.versions import check_version, problem_of


def backend_for(variant: Variant) -> Backend:
    """Return the variant's backend, in a version that serves the target that it was built for.

    Raises:
        BundleError: if the bundle names no versions, but something else.
        MissingDependencyError: if its backend is not installed, or in another version.

    """
    backend = get_backend(variant.backend)
    if variant.versions is not None:
        if problem := problem_of(variant.versions):
            raise BundleError(f"variant {variant.name}: {problem}", remedy="build this variant again")
        check_version(
            f"variant {variant.name}",
            variant.backend,
            backend.version(),
            variant.versions,
            remedy=f"install {variant.backend} {variant.versions}, or build the variant again for this version",
        )
    return backend


def open_variant(bundle: Bundle, name: str, *, threads: int = 0) -> Session:
    """Load a variant as it was built and measured, after a check of its files; ``threads`` 0 leaves their number.

    Raises:
        BundleError: if there is no such variant, or its files are damaged.
        MissingDependencyError: if its backend is not installed, or in a version that does not serve it.

    """
    variant = bundle.variant(name)
    path = bundle.verify_files(name)
    return backend_for(variant).open(path, threads=threads, settings=variant.settings)
