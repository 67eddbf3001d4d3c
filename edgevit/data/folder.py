"""Image folders: ``CLASS/image``, or ``train|val|test/CLASS/image``; images may lie deeper, too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgevit.data.dataset import FileDataset
from edgevit.data.images import SUFFIXES
from edgevit.data.names import composed, similar_names_note
from edgevit.data.splits import FAMILIES, SERVING, SplitName
from edgevit.data.walk import FoundFiles, children, first_shown, folders_in, walk
from edgevit.errors import DataError

_LAYOUT = "lay images out as CLASS/image.jpg, or train/CLASS/image.jpg and test/CLASS/image.jpg"


@dataclass(frozen=True, slots=True)
class _Classes:
    """What one folder of classes holds; ``empty`` are the folders without an image that is read."""

    images: dict[str, list[Path]]
    empty: list[Path]
    nested: list[Path]
    left_out: FoundFiles


def split_names(root: Path) -> frozenset[SplitName]:
    """Return which of "train", "validation" and "test" have a folder of their own under ``root``."""
    return frozenset(_split_folders(root))


def load_folder(root: Path, split: Literal["train", "validation", "test"], *, labelled: bool = True) -> FileDataset:
    """Return the images under ``root``, each labelled with the name of the folder of ``root`` that it is in.

    Images may lie at any depth below their class's folder; they come in the order of torchvision's ImageFolder. If
    ``root`` has a folder that is called as a part is (train, test, validation, val, ...; see ``FAMILIES``) and itself
    holds folders, the wanted split is read from there ("test" takes the validation images where there is no test
    folder); otherwise all images serve any split. Classes are sorted by name and are the same in all splits. Hidden
    files and files that are not named as images are left out. Symbolic links are followed: data sets are often made of
    them. The ``notes`` of what is returned name images and classes that are left out.

    Where they need not be ``labelled``, images that lie in no class's folder, or in that of the only class, are
    taken without labels, and a part may be a folder of such images.

    Raises:
        DataError: if there is no such folder or split, or it has no images or, if they are to be labelled, only one
            class, or if folders within classes are called as splits are.

    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}", remedy=f"check the path; {_LAYOUT}")
    folders = _split_folders(root)
    flat = {} if labelled else _flat_parts(root, folders)
    parts = {**flat, **folders}
    serving = next((name for name in SERVING[split] if name in parts), None)
    if parts and serving is None:
        raise DataError(
            f"{root} has {' and '.join(sorted(folder.name for folder in parts.values()))}, but no images for {split}",
            remedy=f"add a folder {SERVING[split][0]}" + (" with the same classes" if folders else ""),
        )
    place = root if serving is None else parts[serving]
    notes_of_parts = _notes_of_splits(root, parts) if parts else []
    if serving in flat:
        return _unlabelled(root, place, "", notes_of_parts)
    splits = {name: _classes(folder) for name, folder in folders.items()}
    served = _classes(root) if serving is None else splits[serving]
    names = sorted(served.images.keys() | {name for classes in splits.values() for name in classes.images})
    if not labelled and len(names) < 2 and walk(place).images:
        return _unlabelled(root, place, "".join(names), notes_of_parts)
    if not served.images:
        raise _no_images(place, served, f" for {split}" if parts else "")
    if len(names) < 2:
        raise DataError(
            f"{root} has only one class, '{names[0]}'" + "".join(f"; {note}" for note in _left_out(served, names)),
            remedy=f"give at least two classes, each in its own folder; {_LAYOUT}"
            + (f"; or give {place / names[0]}, if its folders are the classes" if served.nested else ""),
        )
    paths = [path for name in names for path in served.images.get(name, ())]
    labels = [label for label, name in enumerate(names) for _ in served.images.get(name, ())]
    notes = [*_notes(place, served, names), *similar_names_note(names), *notes_of_parts]
    return FileDataset(str(root), paths, np.asarray(labels, dtype=np.int64), tuple(names), notes=notes)


def _unlabelled(root: Path, place: Path, only: str, notes: list[str]) -> FileDataset:
    """Return all images below ``place`` without labels; ``only`` is the name of the one class that there is."""
    found = walk(place)
    why = f"{place} has one class alone, '{only}'" if only else f"{place} has no folders of classes"
    notes = [f"{why}: its images are taken without labels", *found.notes(), *notes]
    return FileDataset(str(root), found.images, np.full(len(found.images), -1, dtype=np.int64), (), notes=notes)


def _flat_parts(root: Path, nested: dict[SplitName, Path]) -> dict[SplitName, Path]:
    """Return the folders of ``root`` that are called as parts are and hold images, but no folders of classes.

    Where a folder has another name and no part is ``nested``, they may be classes, and there are none.
    """
    found: dict[SplitName, Path] = {}
    for folder in folders_in(root):
        name = FAMILIES.get(folder.name.lower())
        if name is None and not nested and walk(folder).images:
            return {}
        if name is not None and name not in nested and _loose(folder):
            found.setdefault(name, folder)
    return found


def _split_folders(root: Path) -> dict[SplitName, Path]:
    found: dict[SplitName, Path] = {}
    for folder in folders_in(root):
        name = FAMILIES.get(folder.name.lower())
        if name is None or not folders_in(folder):
            continue
        if name in found:
            raise DataError(
                f"{root} has two folders for {name}: {found[name].name} and {folder.name}",
                remedy="put their images into one of them, and take the other away",
            )
        found[name] = folder
    return found


def _classes(root: Path) -> _Classes:
    images: dict[str, list[Path]] = {}
    empty, nested, left_out = [], [], FoundFiles()
    for folder in folders_in(root):
        _refuse_splits(folder)
        found = walk(folder)
        left_out.add(found)
        if found.images:
            images.setdefault(composed(folder.name), []).extend(found.images)
            nested += found.nested
        else:
            empty.append(folder)
    beside = [path for path in children(root) if path.name.startswith(".") and path.is_dir()]
    for folder in beside:
        inside = walk(folder)
        left_out.hidden += inside.images + inside.hidden
    return _Classes(images, empty, nested, left_out)


def _refuse_splits(folder: Path) -> None:
    """Refuse CLASS/train and CLASS/test: taken as one class, what is tested on would be trained on, too."""
    parts = {name: path for path in folders_in(folder) if (name := FAMILIES.get(path.name.lower())) is not None}
    if len(parts) > 1:
        raise DataError(
            f"the class {folder} has folders called {' and '.join(path.name for path in parts.values())}",
            remedy="lay images out as train/CLASS/image.jpg and test/CLASS/image.jpg",
        )


def _no_images(root: Path, classes: _Classes, purpose: str) -> DataError:
    loose = _loose(root)
    if loose:
        remedy = f"put each image into a folder that is called as its class; {_LAYOUT}"
        return DataError(f"the images in {root}{purpose} lie in no class's folder: {first_shown(loose)}", remedy=remedy)
    said = "; ".join(classes.left_out.notes())
    remedy = "convert them to JPEG" if classes.left_out.unread else _LAYOUT
    return DataError(f"{root} has no images{purpose}" + (f" that EdgeViT reads: {said}" if said else ""), remedy=remedy)


def _notes(place: Path, classes: _Classes, names: list[str]) -> list[str]:
    notes = _left_out(classes, names)
    if classes.nested:
        notes.append(f"images in folders below a class's folder are of that class: {first_shown(classes.nested)}")
    without = [f"'{name}'" for name in names if name not in classes.images]
    if without:
        notes.append(f"{place} has no images of {len(without)} of {len(names)} classes: {', '.join(without[:5])}")
    loose = _loose(place)
    if loose:
        notes.append(f"left out {len(loose)} images that lie in no class's folder: {first_shown(loose)}")
    return notes


def _left_out(classes: _Classes, names: list[str]) -> list[str]:
    vanished = [folder for folder in classes.empty if composed(folder.name) not in names]
    said = [f"left out folders of classes without an image that is read: {first_shown(vanished)}"] if vanished else []
    return classes.left_out.notes() + said


def _notes_of_splits(root: Path, folders: dict[SplitName, Path]) -> list[str]:
    """Say what lies beside the folders of splits."""
    beside = [folder for folder in folders_in(root) if folder not in folders.values() and walk(folder).images]
    notes = [f"left out folders beside those of the parts: {first_shown(beside)}"] if beside else []
    loose = _loose(root)
    return notes + (
        [f"left out {len(loose)} images that lie in no class's folder: {first_shown(loose)}"] if loose else []
    )


def _loose(folder: Path) -> list[Path]:
    """Return the images that lie in ``folder`` itself."""
    return [
        path
        for path in children(folder)
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
