"""Image folders: ``CLASS/image``, or ``train|val|test/CLASS/image``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from edgevit.data.dataset import FileDataset
from edgevit.data.images import SUFFIXES
from edgevit.errors import DataError

_VALIDATION = ("validation", "val", "valid")
_SPLIT_NAMES = {"train": ("train",), "validation": _VALIDATION, "test": ("test", *_VALIDATION)}
"""The folders that serve each split, the most wanted first."""

_LAYOUT = "lay images out as CLASS/image.jpg, or train/CLASS/image.jpg and test/CLASS/image.jpg"


def split_names(root: Path) -> frozenset[str]:
    """Return which of "train", "validation" and "test" have a folder of their own under ``root``."""
    return frozenset("validation" if name in _VALIDATION else name for name in _split_folders(root))


def load_folder(root: Path, split: Literal["train", "validation", "test"]) -> FileDataset:
    """Return the images under ``root``, each labelled with the name of the folder that it is in.

    If ``root`` has a folder called train, test, validation, val or valid that itself holds folders, the wanted split
    is read from there ("test" takes the validation images where there is no test folder); otherwise all images serve
    any split. Classes are sorted by name and are the same in all splits. Hidden files, files that are not named as
    images and classes without images are left out. Symbolic links are followed: data sets are often made of them.

    Raises:
        DataError: if there is no such folder or split, or it has no images or only one class.

    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}", remedy=f"check the path; {_LAYOUT}")
    splits = {name: _images_by_class(folder) for name, folder in _split_folders(root).items()}
    if splits:
        serving = next((name for name in _SPLIT_NAMES[split] if name in splits), None)
        if serving is None:
            raise DataError(
                f"{root} has {' and '.join(sorted(splits))}, but no images for {split}",
                remedy=f"add a folder {_SPLIT_NAMES[split][0]} with the same classes",
            )
        images = splits[serving]
    else:
        images = _images_by_class(root)
    if not images:
        raise DataError(f"{root} has no images{f' for {split}' if splits else ''}", remedy=_LAYOUT)
    class_names = sorted(images.keys() | {name for classes in splits.values() for name in classes})
    if len(class_names) < 2:
        raise DataError(
            f"{root} has only one class, '{class_names[0]}'",
            remedy=f"give at least two classes, each in its own folder; {_LAYOUT}",
        )
    paths = [path for name in class_names for path in images.get(name, ())]
    labels = [label for label, name in enumerate(class_names) for _ in images.get(name, ())]
    return FileDataset(str(root), paths, np.asarray(labels, dtype=np.int64), tuple(class_names))


def _split_folders(root: Path) -> dict[str, Path]:
    known = {name for names in _SPLIT_NAMES.values() for name in names}
    return {
        folder.name.lower(): folder for folder in _folders(root) if folder.name.lower() in known and _folders(folder)
    }


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in _children(root) if path.is_dir())


def _images_by_class(root: Path) -> dict[str, list[Path]]:
    images = {folder.name: _images(folder) for folder in _folders(root)}
    return {name: paths for name, paths in images.items() if paths}


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in _children(folder) if path.suffix.lower() in SUFFIXES and not path.is_dir())


def _children(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror}", remedy=f"make {folder} readable for you") from error
