"""A pack: a bundle as one file, which is read where it is.

It is a plain zip archive, so that it can be looked into and unpacked with any tool, and so that readers in other
languages are short. Nothing is compressed: models are mapped into memory, and engines that can read memory get them
from there. A pack holds the manifest, the golden images, and the files of some variants, each once and nothing else.
"""

from __future__ import annotations

import hashlib
import mmap
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from edgevit.bundle import zip_layout
from edgevit.bundle.manifest import File
from edgevit.bundle.model_files import check_model_file
from edgevit.bundle.reading import (
    MANIFEST,
    all_files,
    damaged,
    decode_manifest_of,
    exported_first,
    reading,
    verified_paths,
)
from edgevit.errors import BundleError, StorageError
from edgevit.files import atomic_folder, cache_folder
from edgevit.json import MOST_BYTES
from edgevit.models.suffixes import MODELS
from edgevit.shell import quoted

#: The file of a pack, and of the folder that it is unpacked to, that says who signed its manifest.
SIGNATURE = "signature.json"

_PACK_AGAIN = "get the pack again from where it came, or make it again with 'edgevit pack BUNDLE'"


class PackedModel(NamedTuple):
    """A model in memory: what messages call it, its content, and that of the files beside it, by their names."""

    path: Path
    content: memoryview
    beside: dict[str, memoryview]

    def write(self, folder: Path) -> Path:
        """Write the model into ``folder``, for what reads files only; return the file to open."""
        for name, content in {self.path.name: self.content, **self.beside}.items():
            (folder / name).write_bytes(content)
        return folder / self.path.name


class Pack:
    """A pack that was opened; what is in a file is checked when it is used, by ``Bundle``.

    Its content is mapped, privately: nothing that is done to the mapping reaches the file.
    """

    def __init__(self, path: Path) -> None:
        """Open the pack at ``path``, and check that its files are those that its manifest lists.

        Raises:
            BundleError: if it is damaged, or anything but what ``write_pack`` writes.

        """
        self.path = path
        with reading(path), path.open("rb") as stream:
            try:
                # Private and not read-only: OpenVINO takes weights from nothing that cannot be written to.
                archive = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY))
            except ValueError as error:
                raise _no_pack(path, "it is empty") from error
        if not zip_layout.MARK.startswith(archive[: len(zip_layout.MARK)].tobytes()):
            raise _no_bundle(path)
        try:
            found = zip_layout.parse(archive, is_aligned)
        except ValueError as error:
            raise _no_pack(path, str(error)) from error
        self._contents = {each.entry.name: archive[each.data : each.data + each.entry.bytes] for each in found}
        if MANIFEST not in self._contents or len(self._contents) < len(found):
            raise _no_pack(path, f"it has no {MANIFEST}, or a file twice")
        for each in found:  # the others have their SHA-256 in the manifest
            if (
                each.entry.name in (MANIFEST, SIGNATURE)
                and zlib.crc32(self._contents[each.entry.name]) != each.entry.crc
            ):
                raise damaged(path / each.entry.name, "its checksum is not the one in the list of files")
        self.manifest = decode_manifest_of(path, self.manifest_bytes)
        self._check_files()

    @property
    def manifest_bytes(self) -> bytes:
        """The manifest as it is written in the pack."""
        return bytes(self._contents[MANIFEST][: MOST_BYTES + 1])

    @property
    def signature_bytes(self) -> bytes | None:
        """The signature; None where there is none."""
        content = self._contents.get(SIGNATURE)
        return None if content is None else bytes(content)

    def verified(self, files: Iterable[File]) -> list[memoryview]:
        """Return the content of files that the manifest lists, once their SHA-256 is checked.

        Raises:
            BundleError: if one differs from what the manifest says, or a model is refused by ``check_model_file``.

        """
        contents = {self.path / file.path: self._contents[file.path] for file in files}
        for (path, content), file in zip(contents.items(), files, strict=True):
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise damaged(path, "its content is not what the manifest says")
        for path, content in contents.items():
            check_model_file(path, frozenset(contents), content)
        return list(contents.values())

    def verified_model(self, files: Sequence[File]) -> PackedModel:
        """Return a variant's ``files``, the first of which is the one to open, after the same check."""
        content, *others = self.verified(files)
        names = [Path(file.path).name for file in files[1:]]
        return PackedModel(self.path / files[0].path, content, dict(zip(names, others, strict=True)))

    def unpacked(self, files: Sequence[File]) -> list[Path]:
        """Return where ``files`` are on the disk, for engines that read no memory; their SHA-256 is checked.

        They lie in a folder of the user's cache that goes by their hashes, and stay there for the next time.

        Raises:
            BundleError: as ``verified``.
            StorageError: if the disk is full or not writable.

        """
        names = "\n".join(f"{file.sha256} {file.path}" for file in files)
        place = cache_folder() / "packs" / hashlib.sha256(names.encode()).hexdigest()
        with suppress(BundleError):
            return verified_paths(place, files)
        contents = self.verified(files)
        try:
            with atomic_folder(place) as draft:
                for file, content in zip(files, contents, strict=True):
                    (draft / file.path).parent.mkdir(parents=True, exist_ok=True)
                    (draft / file.path).write_bytes(content)
        except OSError:  # another process has put them there meanwhile
            return verified_paths(place, files)
        except StorageError as error:
            raise StorageError(
                error.message, remedy="free space there, or name another folder in $EDGEVIT_CACHE"
            ) from error
        return verified_paths(place, files)

    def _check_files(self) -> None:
        """Check that the pack has the files that its manifest lists, and no others.

        Raises:
            BundleError: if it has not.

        """
        listed = {file.path: file.bytes for file in all_files(self.manifest)}
        if itself := listed.keys() & {MANIFEST, SIGNATURE}:
            raise _no_pack(self.path, f"its manifest lists {min(itself)}")
        others = self._contents.keys() - listed.keys() - {MANIFEST, SIGNATURE}
        if others:
            raise _no_pack(self.path, f"its manifest does not list {min(others)}")
        for name, size in listed.items():
            if name not in self._contents:
                raise _no_pack(self.path, f"{name} is missing from it")
            if len(self._contents[name]) != size:
                raise damaged(self.path / name, f"it has {len(self._contents[name])} bytes, not {size}")


def is_pack(path: Path) -> bool:
    """Return whether ``path`` is a file, and so no folder of a bundle."""
    try:
        return path.is_file()
    except OSError:  # a name that no file can have; what opens it says so
        return False


def refuse_pack(path: Path) -> None:
    """Check that ``path`` is no pack, before it is changed.

    Raises:
        BundleError: if it is, or any other file.

    """
    if is_pack(path):
        Pack(path)  # an error if it is another file, such as an image
        folder = path.with_name(f"{path.name.partition('.')[0]}-unpacked.edgevit")
        raise BundleError(
            f"{path} is a pack, which is never changed",
            remedy="change the bundle that it was made of and pack that again, or unpack it: "
            f"unzip {quoted(path)} -d {quoted(folder)}",
        )


def begins_as_pack(path: Path) -> bool:
    """Return whether the file ``path`` begins as a pack does, so that another pack may take its place."""
    header = 30  # of a file in an archive, up to its name
    try:
        with path.open("rb") as stream:
            begun = stream.read(header + len(MANIFEST))
        return begun.startswith(zip_layout.MARK) and begun[header:] == MANIFEST.encode()
    except OSError:
        return False


def is_aligned(name: str) -> bool:
    """Return whether a file begins at a multiple of ``zip_layout.ALIGNMENT``: those of variants do."""
    return "/" in name and not name.startswith("golden/")


def _no_bundle(path: Path) -> BundleError:
    return BundleError(
        f"{path} is not a bundle: that is a folder, or one file that 'edgevit pack' made",
        remedy=exported_first(path)
        if path.suffix in MODELS
        else "name the bundle first: 'edgevit predict BUNDLE IMAGE', 'edgevit quantize BUNDLE --data IMAGES'; "
        "if this is to be a pack, get it again from where it came",
    )


def _no_pack(path: Path, why: str) -> BundleError:
    if path.suffix in MODELS:  # torch writes zip archives, too
        return _no_bundle(path)
    return BundleError(f"{path} is not a pack: {why}", remedy=_PACK_AGAIN)
