"""Opens a variant of a bundle with its backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgevit import backends
from edgevit.backends.backend import Backend
from edgevit.backends.base import Session
from edgevit.bundle.manifest import Variant
from edgevit.bundle.pack import PackedModel
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError
from edgevit.limits import within_limits
from edgevit.progress import SILENT, Progress
from edgevit.versions import check_version, range_reason

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
        if reason := range_reason(variant.versions):
            raise BundleError(f"variant {variant.name}: {reason}", remedy="build this variant again")
        check_version(
            f"variant {variant.name}",
            variant.backend,
            backend.version(),
            variant.versions,
            remedy=f"{backend.how_to_install_version(variant.versions)}, or build the variant again for this version",
        )
    return backend


def open_variant(
    bundle: Bundle,
    name: str,
    *,
    threads: int = 0,
    settings: Mapping[str, str] | None = None,
    batch: int = 1,
    progress: Progress = SILENT,
) -> Session:
    """Load a variant as it was built and measured, after a check of its files; ``threads`` 0 leaves their number.

    ``settings`` override those of the variant. ``batch`` is as in ``Backend.open``.

    Raises:
        BundleError: if there is no such variant, or its files are damaged.
        MissingDependencyError: if its backend is not installed, or in a version that does not serve it, or the device
            that it is for is not here.
        InputError: if opening it takes more memory or time than its size explains.

    """
    variant = bundle.variant(name)
    own = settings_of(variant, settings or {})
    model = _model_of(bundle, variant, own)
    backend = backend_for(variant)

    def opened() -> Session:
        if isinstance(model, PackedModel):
            return backend.open_packed(model, threads=threads, settings=own, batch=batch)
        return backend.open(model, threads=threads, settings=own, batch=batch, progress=progress)

    if backend.builds_on_device:  # files are compiled there, and drivers reserve what they do not use
        return opened()
    return within_limits(variant.bytes, f"variant {name}", opened)


def _model_of(bundle: Bundle, variant: Variant, settings: Mapping[str, str]) -> Path | PackedModel:
    """Return what the backend opens, after a check: a file, or what is in a pack."""
    backend = backends.backend_class(variant.backend)
    names = [Path(file.path).name for file in variant.files]
    packed = bundle.verify_packed(variant.name, backend.formats) if backend.reads_memory(names, settings) else None
    return bundle.verify_files(variant.name, backend.formats) if packed is None else packed


def unsupported_reason(bundle: Bundle, variant: Variant, settings: Mapping[str, str] | None = None) -> str | None:
    """Return why ``variant`` is not for this machine, which lacks the device that it is for; None if it is tried.

    ``settings`` are as in ``open_variant``.
    """
    if variant.backend not in backends.BACKENDS:  # of a later EdgeViT: opening it says so
        return None
    backend = backends.backend_class(variant.backend)
    path = bundle.path / variant.files[0].path
    if bundle.pack is not None and backend.builds_on_device:  # what lies beside the file tells
        path = bundle.verify_files(variant.name, backend.formats)
    return backend.unsupported_reason(path, settings_of(variant, settings or {}))


def settings_of(variant: Variant, given: Mapping[str, str]) -> dict[str, str]:
    """Return what ``variant`` is opened with: its own settings but those that only a user may give, then ``given``."""
    own = {name: value for name, value in variant.settings.items() if name not in _USERS_OWN}
    return {**own, **given}
