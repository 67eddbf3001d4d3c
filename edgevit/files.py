"""Writes that either happen whole or not at all, and hashes.

A new file or folder is written beside its place under a temporary name, flushed to the disk, and renamed: a kill at
any moment leaves what was there before.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edgevit.errors import StorageError

_TRIES = 8  # to make a folder that no other process removes


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write at ``path`` into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        remedies = {
            errno.ENOSPC: "free some space on that disk, or write to another with -o",
            errno.EDQUOT: "your disk quota is used up: free some space, or write to another disk with -o",
            errno.EROFS: "write to another place with -o",
            errno.EACCES: "make the folder writable for you, or write to another place with -o",
            errno.EPERM: "make the folder writable for you, or write to another place with -o",
            errno.EFBIG: "write to a disk that takes files of this size with -o",
            errno.ENOENT: "write to another place with -o: this one takes no new files",
            errno.EEXIST: "a file stands where a folder is needed: write to another place with -o",
            errno.ENOTDIR: "a file stands where a folder is needed: write to another place with -o",
            errno.ENAMETOOLONG: "give a shorter path with -o",
        }
        if error.errno not in remedies:
            raise
        raise StorageError(f"cannot write {path}: {error.strerror}", remedy=remedies[error.errno]) from error


def cache_folder() -> Path:
    """Return where files lie that can be made or fetched again: in $EDGEVIT_CACHE, else in ~/.cache/edgevit.

    Raises:
        StorageError: if neither is known.

    """
    if override := os.environ.get("EDGEVIT_CACHE"):
        return Path(override)
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")) / "edgevit"


def shareable(source: str) -> str:
    """Return ``source``, a path or another name, without the folders of a path from the root or from a home.

    They are no one else's business where the name goes along with a model or a report.
    """
    return (Path(source).name or source) if source.startswith(("/", "~")) or Path(source).is_absolute() else source


def expanded(path: str | Path) -> Path:
    """Return ``path`` with the user's home for ``~``.

    Raises:
        StorageError: if there is no home, as for a user that a container made up.

    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise StorageError(
            f"there is no home for {path}: HOME is not set, and the system does not know this user",
            remedy="set HOME, or give a whole path; EDGEVIT_CACHE names a folder for what is kept between runs",
        ) from error


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush all files and folders below ``folder`` to the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


@contextmanager
def _temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in ``parent``, and remove it afterwards, wherever a signal has ended the work.

    One that comes while ``tempfile.TemporaryDirectory`` makes or removes its folder leaves it there. A kill leaves it,
    too: while it is used the folder is locked, and what is not locked any more the next one with ``prefix`` removes.
    """
    import shutil  # here and below: a device that only reads starts faster without it

    _remove_abandoned(parent, prefix)
    folder, lock = _unused(parent, prefix), -1
    try:
        for _ in range(_TRIES):
            folder.mkdir(mode=0o700)
            with suppress(FileNotFoundError, BlockingIOError):
                lock = _locked(folder)
            if lock >= 0 and _is_at(lock, folder):
                break
            # Another process took it for abandoned before it was locked, and removes it.
            if lock >= 0:
                os.close(lock)
            folder, lock = _unused(parent, prefix), -1
        else:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # once more: the signal may have ended the first
            if lock >= 0:
                os.close(lock)


def _unused(parent: Path, prefix: str) -> Path:
    return parent / f"{prefix}{os.urandom(8).hex()}"


def _is_at(descriptor: int, folder: Path) -> bool:
    """Return whether the folder that is open as ``descriptor`` is still the one at that path."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove this user's folders of that name in ``parent`` that nobody has locked: their processes are gone."""
    import shutil

    try:
        found = [
            entry for entry in os.scandir(parent) if re.fullmatch(rf"{re.escape(prefix)}[0-9a-f]{{16}}", entry.name)
        ]
    except OSError:  # it is to be made yet, or cannot be read
        return
    for entry in found:
        try:
            if entry.stat(follow_symlinks=False).st_uid == os.geteuid() and entry.is_dir(follow_symlinks=False):
                lock = _locked(Path(entry.path))
                try:
                    shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(lock)
        except OSError:  # noqa: PERF203 - it is used, or has gone meanwhile
            continue


def _locked(folder: Path) -> int:
    """Return a descriptor by which ``folder`` is locked until it is closed, or this process ends.

    Raises:
        BlockingIOError: if it is locked already.
        OSError: if it is gone, or the file system knows no locks.

    """
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write a file to; on a clean exit it replaces ``path``.

    Raises:
        StorageError: if the disk is full or not writable; ``path`` is as it was before.

    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(path.parent, f".{path.name}.") as temporary:
            draft = temporary / path.name
            yield draft
            with draft.open("rb") as stream:
                os.fsync(stream.fileno())
            draft.replace(path)
        sync_folder(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at ``path`` with ``content``, whole or not at all.

    Raises:
        StorageError: if the disk is full or not writable.

    """
    with atomic_path(path) as draft:
        draft.write_bytes(content)


class _TriedError(Exception):
    """A file could be written, and is not to take its place."""


def check_writable(path: Path, *, remedy: str) -> None:
    """Check that a file can be written to ``path``, before work of minutes whose result is to go there.

    Raises:
        StorageError: with ``remedy``, if nothing can.

    """
    if path.exists() and not path.is_file():
        raise StorageError(f"cannot write {path}: it is no file", remedy=remedy)
    try:
        with suppress(_TriedError), atomic_path(path) as draft:
            draft.touch()
            raise _TriedError
    except StorageError as error:
        raise StorageError(error.message, remedy=remedy) from error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder for what is needed for a while; it is removed afterwards.

    Raises:
        StorageError: if it has no room; the remedy says how to have it elsewhere.

    """
    import tempfile

    remedy = "free some space there, or set TMPDIR to a folder on another disk"
    folder = None
    try:
        with _temporary_folder(Path(tempfile.gettempdir()), "edgevit-scratch-") as folder:
            yield folder
    except OSError as error:  # on a full disk Python finds no temporary folder that it could use
        if folder is not None:
            raise
        raise StorageError(f"cannot make a temporary folder: {error.strerror}", remedy=remedy) from error
    except StorageError as error:
        if str(folder) not in error.message:
            raise
        raise StorageError(error.message, remedy=remedy) from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` to fill; on a clean exit it takes the place of ``path``.

    A folder that is at ``path`` already is removed afterwards. Where the system exchanges folders, as Linux does on
    most file systems, there is no moment without one; else it is moved aside first.

    Raises:
        StorageError: if the disk is full or not writable; ``path`` is as it was before.

    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(path.parent, f".{path.name}.") as temporary:
            draft = temporary / "new"
            draft.mkdir()
            yield draft
            sync_tree(draft)
            for turn in itertools.count():  # until no other process puts one there or takes it away meanwhile
                if _in_place(draft, path, temporary / f"old{turn}"):
                    break
            sync_folder(path.parent)


def _in_place(draft: Path, path: Path, old: Path) -> bool:
    """Put the folder ``draft`` at ``path``, and what is there elsewhere; return False if it is to be tried again."""
    if path.exists() and _exchanged(draft, path):
        return True
    try:
        if path.exists():
            path.replace(old)
        draft.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or not draft.exists():
            raise
        return False
    finally:
        if old.exists() and not path.exists():
            with suppress(OSError):  # another process was faster
                old.replace(path)
    return True


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return whether the system does that."""
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as lower-case hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(stream)


def _digest(stream: BinaryIO) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def bytes_in(folder: Path) -> int:
    """Return how many bytes the files below ``folder`` have."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def copy_tree(source: Path, target: Path) -> None:
    """Copy the files and folders in ``source`` into the folder ``target``; an error is the system's own.

    ``shutil.copytree`` gathers what went wrong in an error without a number, which says neither what nor where.
    """
    import shutil

    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            shutil.copyfile(path, place)
