"""Opens a variant of a bundle with its backend."""

from __future__ import annotations

from collections.abc import Mapping

from edgevit import backends
from edgevit.backends.base import Session
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle

#: Settings that a user gives, and a bundle cannot: they let its files do more than be read.
_USERS_OWN = frozenset(("host_code",))


def open_variant(bundle: Bundle, name: str, *, threads: int = 0, settings: Mapping[str, str] | None = None) -> Session:
    """Load a variant as it was built and measured, after a check of its files; ``threads`` 0 leaves their number.

    ``settings`` go before those of the variant.

    Raises:
        BundleError: if there is no such variant, or its files are damaged.
        MissingDependencyError: if its backend is not installed, or the device that it is for is not here.

    """
    variant = bundle.variant(name)
    path = bundle.verify_files(name)
    return backends.get_backend(variant.backend).open(
        path, threads=threads, settings=_settings(variant, settings or {})
    )


def why_not_here(bundle: Bundle, variant: Variant, settings: Mapping[str, str] | None = None) -> str | None:
    """Return why ``variant`` is not for this machine, which lacks the device that it is for; None if it is tried.

    ``settings`` are as in ``open_variant``.
    """
    path = bundle.path / variant.files[0].path
    return backends.why_not_here(variant.backend, path, _settings(variant, settings or {}))


def _settings(variant: Variant, given: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in variant.settings.items() if name not in _USERS_OWN}
    return {**own, **given}
