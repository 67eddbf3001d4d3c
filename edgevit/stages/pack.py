"""``edgevit pack``: a bundle, or some of its variants, as one file for the device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgevit.brief import printed
from edgevit.bundle.manifest import Manifest
from edgevit.bundle.pack import begins_as_pack
from edgevit.bundle.packing import write_pack
from edgevit.bundle.store import Bundle, Existing
from edgevit.errors import BundleError
from edgevit.files import sha256_of
from edgevit.models.licenses import License
from edgevit.progress import SILENT, Progress

#: How the name of a pack ends.
ENDING = ".edgevit.zip"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackResult:
    """A pack: its path, size and hash, the variants in it, and whether it is signed."""

    path: Path
    bytes: int
    sha256: str
    variants: tuple[str, ...]
    signed: bool
    license: License | None

    __repr__ = printed

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit pack --json`` prints."""
        made: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        return made


def pack(
    bundle: Bundle,
    output: Path | None = None,
    *,
    variants: Sequence[str] = (),
    key: Path | None = None,
    existing: Existing = "refuse",
    progress: Progress = SILENT,
) -> PackResult:
    """Write ``variants`` of ``bundle``, all if none are named, to the file ``output``, beside the bundle without it.

    ``key`` is the file of a private Ed25519 key that signs the pack.

    Raises:
        BundleError: if there is no such variant, a file is damaged, or ``output`` may not be replaced.
        InputError: if ``key`` is no such key.
        MissingDependencyError: if the package that signs is not installed.
        StorageError: if the disk is full or not writable; what was at ``output`` is as it was before.

    """
    names = tuple(dict.fromkeys(bundle.variant(name).name for name in variants))
    path = default_path(bundle.path) if output is None else output
    _check_place(path, bundle, existing)
    manifest = write_pack(bundle, path, names or names_in(bundle.manifest), key=key, progress=progress)
    return PackResult(
        path=path,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        variants=names_in(manifest),
        signed=key is not None,
        license=manifest.provenance.license,
    )


def default_path(bundle: Path, ending: str = ENDING) -> Path:
    """Return where what is made of ``bundle`` goes if nothing else is said: NAME.edgevit.zip, beside the bundle."""
    whole = bundle.resolve()
    return bundle.parent / f"{whole.name.removesuffix('.zip').removesuffix('.edgevit')}{ending}"


def names_in(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of all variants."""
    return tuple(variant.name for variant in manifest.variants)


def _check_place(path: Path, bundle: Bundle, existing: Existing) -> None:
    """Check that a pack may be written to ``path``.

    Raises:
        BundleError: if something is there that may not be replaced.

    """
    if not os.path.lexists(path):
        return
    if existing == "refuse" and path.is_file():
        raise BundleError(f"{path} exists already", remedy="add --overwrite, or give another path with -o")
    if not begins_as_pack(path):
        raise BundleError(f"{path} exists already and is no pack", remedy="give another path with -o")
    if path.exists() and bundle.path.exists() and path.samefile(bundle.path):
        raise BundleError(f"{path} is the pack that is read", remedy="give another path with -o")
