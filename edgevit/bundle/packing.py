"""Writes packs: a bundle, or some of its variants, as one file (see ``bundle.pack``)."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from edgevit.bundle import zip_layout
from edgevit.bundle.manifest import File, Manifest
from edgevit.bundle.pack import SIGNATURE, is_aligned
from edgevit.bundle.reading import MANIFEST, encode_manifest, logical_path
from edgevit.bundle.signature import sign
from edgevit.bundle.store import Bundle
from edgevit.bundle.zip_layout import Entry
from edgevit.errors import BundleError
from edgevit.files import atomic_path
from edgevit.progress import SILENT, Progress

_CHUNK = 1 << 20

#: What an entry's content is: bytes in memory, or a file.
_Content = bytes | memoryview | Path


def write_pack(
    bundle: Bundle, path: Path, variants: Sequence[str], *, key: Path | None = None, progress: Progress = SILENT
) -> Manifest:
    """Write ``variants`` of ``bundle`` to the file ``path`` as a pack, whole or not at all; return its manifest.

    Calibration, report and what was measured on other devices stay behind. The same variants give the same bytes.
    ``key`` is the file of a private Ed25519 key that signs the pack.

    Raises:
        BundleError: if there is no such variant, a file is damaged, or they are more than a pack holds.
        InputError: if ``key`` is no such key.
        StorageError: if the disk is full or not writable; what was at ``path`` is as it was before.

    """
    manifest = packed(bundle.manifest, variants)
    content = encode_manifest(manifest)
    sources: dict[str, _Content] = {MANIFEST: content}
    if key is not None:
        sources[SIGNATURE] = sign(content, key)
    groups = [bundle.manifest.golden, *(bundle.variant(name).files for name in variants)]
    for files in progress.track(groups, total=len(groups), label="Checking files"):
        sources.update(zip(map(logical_path, files), bundle.verified(files), strict=True))
    _write(path, sources, progress)
    return manifest


def packed(manifest: Manifest, variants: Collection[str]) -> Manifest:
    """Return the manifest of a pack: with some variants, no further files or devices, and folders without numbers."""
    kept = tuple(
        msgspec.structs.replace(variant, files=_logical(variant.files))
        for variant in manifest.variants
        if variant.name in variants
    )
    return msgspec.structs.replace(manifest, variants=kept, golden=_logical(manifest.golden), extra=(), devices=())


def _logical(files: Sequence[File]) -> tuple[File, ...]:
    return tuple(msgspec.structs.replace(file, path=logical_path(file)) for file in files)


def _write(path: Path, sources: dict[str, _Content], progress: Progress) -> None:
    entries = [Entry(name, *_sums(source), aligned=is_aligned(name)) for name, source in sources.items()]
    if len(entries) > zip_layout.MOST_ENTRIES or zip_layout.total_bytes(entries) > zip_layout.MOST_BYTES:
        raise BundleError(
            f"a pack holds at most {zip_layout.MOST_ENTRIES} files and 4 GiB, and this is more",
            remedy="pack fewer variants, with --variant NAME",
        )
    placed = list(zip_layout.placed(entries))
    with atomic_path(path) as draft, draft.open("wb") as stream:
        for each in progress.track(placed, total=len(placed), label="Packing"):
            stream.write(each.header)
            for chunk in _chunks(sources[each.entry.name]):
                stream.write(chunk)
            if stream.tell() != each.data + each.entry.bytes:
                raise BundleError(f"{each.entry.name} was changed while it was packed", remedy="pack it again")
        stream.write(zip_layout.directory(placed))


def _sums(source: _Content) -> tuple[int, int]:
    """Return the CRC-32 of a file's content, and how many bytes it has."""
    crc = size = 0
    for chunk in _chunks(source):
        crc, size = zlib.crc32(chunk, crc), size + len(chunk)
    return crc, size


def _chunks(source: _Content) -> Iterator[bytes | memoryview]:
    if not isinstance(source, Path):
        yield source
        return
    with source.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
