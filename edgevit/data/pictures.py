"""Images without labels: files, and whatever lies in folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgevit.data.walk import walk
from edgevit.errors import DataError
from edgevit.progress import SILENT, Progress

#: What one call looks at; more are given in parts, so that no memory is filled with answers.
MOST = 100_000


def images_in(paths: Iterable[Path], progress: Progress = SILENT) -> list[Path]:
    """Return ``paths`` with the images at any depth in the place of each folder, in order; say what is left out.

    Raises:
        DataError: if a folder has no image that is read, or cannot be listed, or there are more than ``MOST``.
    """
    images: list[Path] = []
    for path in paths:
        images += _of_folder(path, progress) if _is_folder(path) else [path]
    if len(images) > MOST:
        raise DataError(
            f"that is {len(images):,} images, more than {MOST:,}", remedy="give the folders in it one by one"
        )
    return images


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file can have, or that may not be looked at; who opens it says so
        return False


def _of_folder(folder: Path, progress: Progress) -> list[Path]:
    found = walk(folder)
    if not found.images:
        said = "; ".join(found.notes())
        raise DataError(
            f"{folder} has no images" + (f" that EdgeViT reads: {said}" if said else ""),
            remedy="convert them to JPEG" if found.unread else "give a folder of JPEG, PNG or WebP images, or files",
        )
    for note in found.notes():
        progress.note(note)
    return found.images
