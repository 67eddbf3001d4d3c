"""``edgevit pack --format triton``: a bundle, or some of its variants, as a model repository for Triton."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from edgevit import __version__
from edgevit.brief import printed
from edgevit.bundle.store import Bundle, Existing
from edgevit.errors import BundleError
from edgevit.files import atomic_folder, bytes_in
from edgevit.models.licenses import License
from edgevit.progress import SILENT, Progress
from edgevit.runtime.arguments import name_of_service
from edgevit.stages.pack import default_path, names_in
from edgevit.tritonserver.repository import MARKER, Served, is_repository, write_repository

#: How the name of a repository ends.
ENDING: Final = ".triton"


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonResult:
    """A model repository: where it is, how large, its models, and why a variant has no model of its own."""

    path: Path
    bytes: int
    models: tuple[Served, ...]
    left_out: dict[str, str]
    variants: tuple[str, ...]
    signed: bool
    license: License | None

    __repr__ = printed

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit pack --format triton --json`` prints."""
        made: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        return made


def pack_triton(
    bundle: Bundle,
    output: Path | None = None,
    *,
    variants: Sequence[str] = (),
    name: str | None = None,
    key: Path | None = None,
    existing: Existing = "refuse",
    progress: Progress = SILENT,
) -> TritonResult:
    """Write ``variants`` of ``bundle``, all if none are named, to the folder ``output``, beside the bundle without it.

    ``name`` is what clients call the model, the bundle's own without it. ``key`` is the file of a private Ed25519 key
    that signs the pack in it.

    Raises:
        BundleError: if there is no such variant, a file is damaged, or ``output`` may not be replaced.
        InputError: if ``key`` is no such key, or ``name`` cannot be a model's.
        MissingDependencyError: if the package that signs is not installed.
        StorageError: if the disk is full or not writable; what was at ``output`` is as it was before.

    """
    chosen = tuple(dict.fromkeys(bundle.variant(each).name for each in variants))
    called = name_of_service(bundle.manifest.name if name is None else name)
    folder = default_path(bundle.path, ENDING) if output is None else output
    _check_place(folder, existing)
    with atomic_folder(folder) as draft:
        written = write_repository(bundle, draft, chosen, name=called, version=__version__, key=key, progress=progress)
        size = bytes_in(draft)  # once it is in its place another process may put its own there
    return TritonResult(
        path=folder,
        bytes=size,
        models=written.models,
        left_out=written.left_out,
        variants=chosen or names_in(bundle.manifest),
        signed=key is not None,
        license=bundle.manifest.provenance.license,
    )


def _check_place(folder: Path, existing: Existing) -> None:
    """Check that a repository may be written to ``folder``.

    Raises:
        BundleError: if something is there that may not be replaced.

    """
    if not os.path.lexists(folder):
        return
    if not is_repository(folder):
        raise BundleError(
            f"{folder} exists already, and is no model repository that EdgeViT alone has written (with {MARKER})",
            remedy="give another path with -o",
        )
    if existing == "refuse":
        raise BundleError(f"{folder} exists already", remedy="add --overwrite, or give another path with -o")
