"""Changes a bundle so that a kill at any moment leaves the old one or the new one.

The manifest is the truth: a folder that it does not name is not part of the bundle. A change fills folders in
``.draft``, renames them to names that are still free, and then replaces the manifest, which is the moment when the
change happens. Folders that the manifest has stopped naming are removed afterwards. Before the first rename the names
of all folders concerned are noted in ``.draft/journal.json``, so that whoever changes the bundle next knows which of
them a killed process has left behind; nothing else is ever removed. ``.lock`` keeps two processes from changing the
bundle at once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from edgevit.bundle.manifest import File, Manifest
from edgevit.bundle.pack import refuse_pack
from edgevit.bundle.reading import MANIFEST, all_files, encode_manifest, logical_name, read_manifest
from edgevit.errors import BundleError
from edgevit.files import storage_errors, sync_folder, sync_tree
from edgevit.json import JSONError, read
from edgevit.shell import quoted

_LOCK = ".lock"
_DRAFT = ".draft"
_JOURNAL = "journal.json"
_FOLDER = re.compile(r"\A[a-z0-9][a-z0-9_-]*(\.[0-9]+)?\Z")


class Transaction:
    """A change of the bundle in the folder ``path``, by the one process that may make one now.

    ``manifest`` is what the bundle is before it, None if there is none yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = _manifest_if_any(path)
        self._draft = path / _DRAFT

    def folder(self, name: str) -> Path:
        """Return a new empty folder to fill, for ``publish``."""
        if not _FOLDER.match(name) or "." in name:
            raise BundleError(
                f"'{name}' cannot name a folder of a bundle", remedy="use lower-case letters, digits, - and _"
            )
        folder = self._draft / "folders" / name
        folder.mkdir(parents=True)
        return folder

    def place(self, name: str) -> Path:
        """Return where in the draft a whole bundle called ``name`` can be built, for ``adopt``."""
        place = self._draft / "built"
        place.mkdir()
        return place / name

    def publish(self, manifest: Manifest, *names: str) -> Manifest:
        """Make ``manifest`` the bundle's, with the filled folders ``names``; return it as it was written.

        The paths in ``manifest`` begin with these names. Where a folder that is being replaced still has such a name,
        the new one gets a number (``name.2``) until the old one is gone.
        """
        self._publish(manifest, {name: self._draft / "folders" / name for name in names})
        with suppress(OSError):  # the change is made; where the numbers cannot be taken off again they may stay
            if links := self._link(manifest):
                self._publish(manifest, links)
        return self.manifest or manifest

    def adopt(self, built: Path) -> Manifest:
        """Make the bundle that was built in the folder ``built``, on the same disk, this one; return its manifest.

        What was there before gives way as a whole; ``built`` is used up.
        """
        manifest = read_manifest(built)
        names = {place: logical_name(place) for place in _folders(manifest)}
        for place, name in names.items():
            self.folder(name).rmdir()
            (built / place).rename(self._draft / "folders" / name)
        return self.publish(_relocate(manifest, names), *names.values())

    def _publish(self, manifest: Manifest, drafts: Mapping[str, Path]) -> None:
        places = {name: _free_name(self.path, name) for name in drafts}
        written = _relocate(manifest, places)
        content = encode_manifest(written)
        for draft in drafts.values():
            sync_tree(draft)
        present = [place for place in _folders(self.manifest) if (self.path / place).is_dir()]
        concerned = {place: _inode(self.path / place) for place in present}
        concerned |= {places[name]: _inode(draft) for name, draft in drafts.items()}
        self._write(_JOURNAL, msgspec.json.encode(concerned, order="sorted"))
        for name, draft in drafts.items():
            draft.rename(self.path / places[name])
        sync_folder(self.path)
        self._write(MANIFEST, content).replace(self.path / MANIFEST)
        self.manifest = written
        sync_folder(self.path)
        _remove_orphans(self.path)

    def _link(self, manifest: Manifest) -> dict[str, Path]:
        """Return copies, made of hard links, of the folders that got a number but could now go by their names."""
        copies = {}
        for place in _folders(self.manifest) - _folders(manifest):
            name = logical_name(place)
            if not os.path.lexists(self.path / name):
                copies[name] = self._draft / "links" / name
                shutil.copytree(self.path / place, copies[name], copy_function=os.link)
        return copies

    def _write(self, name: str, content: bytes) -> Path:
        path = self._draft / name
        with path.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(self._draft)
        return path


@contextmanager
def transaction(path: Path) -> Iterator[Transaction]:
    """Begin a change of the bundle in the existing folder ``path``; what a killed process left there is removed.

    Raises:
        BundleError: if another process is changing it, or its manifest is damaged.
        StorageError: if the disk is full or not writable; the bundle is as it was before.

    """
    with storage_errors(path), _changing(path) as change:
        yield change


@contextmanager
def _changing(path: Path) -> Iterator[Transaction]:
    refuse_pack(path)
    with _lock(path):
        _clean(path)
        try:
            change = Transaction(path)
            (path / _DRAFT).mkdir()
            yield change
        finally:
            with suppress(OSError):  # what cannot be removed now, the next change removes
                _clean(path)
                if _names(path) <= {_LOCK}:  # a bundle was to be made here, and was not
                    shutil.rmtree(path)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"there is no bundle {path}", remedy="give the folder that 'edgevit export' made") from None
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ELOOP, errno.ENXIO):
            raise _in_the_way(path / _LOCK) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _in_the_way(path / _LOCK)
        _take(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _in_the_way(path: Path) -> BundleError:
    return BundleError(f"{path} is not a file that EdgeViT made", remedy=f"remove it: rm -r {quoted(path)}")


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = os.path.samestat(os.fstat(descriptor), (path / _LOCK).stat())  # or its holder has removed the folder
    except (BlockingIOError, FileNotFoundError):
        taken = False
    if not taken:
        raise BundleError(f"another process is changing {path}", remedy="wait until it is done, then run this again")


@contextmanager
def creation(path: Path, existing: Literal["refuse", "replace"]) -> Iterator[Transaction]:
    """Begin to make a bundle in the folder ``path``, or to replace the one that is there as a whole.

    Raises:
        BundleError: if something is there that may not be replaced.
        StorageError: if the disk is full or not writable; what was there is as it was before.

    """
    refuse_existing(path, existing)
    try:
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        with transaction(path) as change:
            refuse_existing(path, existing)  # another process may have made one before the lock was taken
            yield change
    finally:
        with suppress(OSError):
            path.rmdir()  # only if it is empty: the lock could not be made either


@contextmanager
def rebuilding(path: Path) -> Iterator[Path]:
    """Yield where to build a bundle that takes the place of the one at ``path``, on a clean exit and at one moment.

    Until then the old bundle is as it was, and no other process can change it. What a killed process has built the
    next change of the old bundle removes.

    Raises:
        BundleError: if there is no bundle at ``path``, another process is changing it, or none was built.
        StorageError: if the disk is full or not writable; the bundle is as it was before.

    """
    with ExitStack() as stack:
        with storage_errors(path):
            change = stack.enter_context(_changing(path))
            place = change.place(path.name)
        yield place  # errors of the work itself are none of storing the bundle: they pass as they are
        with storage_errors(path):
            change.adopt(place)


def refuse_existing(path: Path, existing: Literal["refuse", "replace"]) -> None:
    """Check that a bundle may be made at ``path``.

    Raises:
        BundleError: if something is there that may not be replaced.

    """
    if is_bundle(path):
        if existing == "refuse":
            raise BundleError(f"{path} exists already", remedy="add --overwrite, or give another path with -o")
    elif os.path.lexists(path) and not (path.is_dir() and _is_unborn(path)):
        raise BundleError(f"{path} exists already and is not a bundle", remedy="give another path with -o")


def _is_unborn(path: Path) -> bool:
    """Say whether the folder ``path`` is empty, or has only what a killed process left that was making a bundle."""
    return _names(path) <= {_LOCK, _DRAFT, *_journal(path)}


def _names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def is_bundle(path: Path) -> bool:
    """Say whether there is a bundle at ``path``, whole or damaged."""
    return os.path.lexists(path / MANIFEST)


def _manifest_if_any(path: Path) -> Manifest | None:
    return read_manifest(path) if is_bundle(path) else None


def _folders(manifest: Manifest | None) -> set[str]:
    """Return the folders that the manifest names, with their numbers."""
    return {file.path.partition("/")[0] for file in all_files(manifest)} if manifest else set()


def _free_name(path: Path, name: str) -> str:
    number = 1
    place = name
    while os.path.lexists(path / place):
        number += 1
        place = f"{name}.{number}"
    return place


def _relocate(manifest: Manifest, places: Mapping[str, str]) -> Manifest:
    def moved(files: tuple[File, ...]) -> tuple[File, ...]:
        return tuple(
            msgspec.structs.replace(file, path=f"{places.get(folder, folder)}/{rest}" if rest else folder)
            for file in files
            for folder, _, rest in [file.path.partition("/")]
        )

    return msgspec.structs.replace(
        manifest,
        golden=moved(manifest.golden),
        extra=moved(manifest.extra),
        variants=tuple(msgspec.structs.replace(one, files=moved(one.files)) for one in manifest.variants),
    )


def _inode(folder: Path) -> int:
    return folder.stat().st_ino


def _journal(path: Path) -> set[str]:
    """Return the folders that the last change was concerned with; a journal that was cut off names none.

    It tells a folder by its inode, too: what a journal from elsewhere names, or stands there since, is the user's.
    """
    journal = path / _DRAFT / _JOURNAL
    if (path / _DRAFT).is_symlink() or journal.is_symlink() or not journal.is_file():
        return set()
    try:
        inodes = read(journal, dict[str, int])
    except JSONError:
        return set()  # it was killed while it wrote the journal, and so before it renamed anything
    return {
        name
        for name, inode in inodes.items()
        if _FOLDER.match(name) and os.path.lexists(path / name) and (path / name).lstat().st_ino == inode
    }


def _remove_orphans(path: Path) -> None:
    for orphan in _journal(path) - _folders(_manifest_if_any(path)):
        _remove(path / orphan)


def _clean(path: Path) -> None:
    """Remove the draft, and the folders in its journal that the manifest does not name."""
    if os.path.lexists(path / _DRAFT):
        _remove_orphans(path)
        _remove(path / _DRAFT)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
