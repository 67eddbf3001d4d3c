"""Opens a variant of a bundle with its backend."""

from __future__ import annotations

from collections.abc import Mapping

from edgevit import backends
from edgevit.backends.base import Backend, Session
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError
from edgevit.limits import within_limits
from edgevit.progress import SILENT, Progress
from edgevit.versions import check_version, problem_of

#: Settings that a user gives, and a bundle cannot: they let its files do more than be read.
_USERS_OWN = frozenset(("host_code",))


def backend_for(variant: Variant) -> Backend:
    """Return the variant's backend, in a version that serves the target that it was built for.

    Raises:
        BundleError: if the bundle names no versions, but something else.
        MissingDependencyError: if its backend is not installed, or in another version.

    """
    backend = backends.get_backend(variant.backend)
    if variant.versions is not None:
        if problem := problem_of(variant.versions):
            raise BundleError(f"variant {variant.name}: {problem}", remedy="build this variant again")
        check_version(
            f"variant {variant.name}",
            variant.backend,
            backend.version(),
            variant.versions,
            remedy=_how_to_get(variant.backend, variant.versions),
        )
    return backend


def open_variant(
    bundle: Bundle,
    name: str,
    *,
    threads: int = 0,
    settings: Mapping[str, str] | None = None,
    progress: Progress = SILENT,
) -> Session:
    """Load a variant as it was built and measured, after a check of its files; ``threads`` 0 leaves their number.

    ``settings`` go before those of the variant.

    Raises:
        BundleError: if there is no such variant, or its files are damaged.
        MissingDependencyError: if its backend is not installed, or in a version that does not serve it, or the device
            that it is for is not here.
        InputError: if opening it takes more memory or time than its size explains.

    """
    variant = bundle.variant(name)
    path = bundle.verify_files(name)
    backend, own = backend_for(variant), settings_of(variant, settings or {})

    def opened() -> Session:
        return backend.open(path, threads=threads, settings=own, progress=progress)

    if variant.backend in backends.ON_DEVICE:  # files are compiled there, and drivers reserve what they do not use
        return opened()
    return within_limits(variant.bytes, f"variant {name}", opened)


def why_not_here(bundle: Bundle, variant: Variant, settings: Mapping[str, str] | None = None) -> str | None:
    """Return why ``variant`` is not for this machine, which lacks the device that it is for; None if it is tried.

    ``settings`` are as in ``open_variant``.
    """
    path = bundle.path / variant.files[0].path
    return backends.why_not_here(variant.backend, path, settings_of(variant, settings or {}))


def settings_of(variant: Variant, given: Mapping[str, str]) -> dict[str, str]:
    """Return what ``variant`` is opened with: its own settings but those that only a user may give, then ``given``."""
    own = {name: value for name, value in variant.settings.items() if name not in _USERS_OWN}
    return {**own, **given}


def _how_to_get(backend: str, versions: str) -> str:
    if backend in backends.ON_DEVICE:
        return f"install {backend} {versions}, or build the variant again for this version"
    return f'pip install "{backend}{versions}", or build the variant again for this version'
