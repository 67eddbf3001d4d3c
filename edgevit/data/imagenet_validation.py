"""ImageNet-1k's validation images as they are handed out: one folder of files, with their classes somewhere beside it.

Three layouts are usual. Folders of classes (``val/n01440764/...``) are read as any other folder is. In the others all
images lie in one folder, and their classes are found in Kaggle's ``LOC_val_solution.csv``, in the development kit
(``ILSVRC2012_devkit_t12``), in Caffe's ``val.txt``, or in the files' own names, as on the Hugging Face Hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgevit.data.dataset import FileDataset
from edgevit.data.folder import load_folder
from edgevit.data.imagenet import imagenet_synsets
from edgevit.data.images import SUFFIXES
from edgevit.data.mat_file import read_structs
from edgevit.data.splits import SplitName
from edgevit.data.walk import children, first_shown, folders_in
from edgevit.errors import DataError

_IMAGE = re.compile(r"ILSVRC2012_val_([0-9]{8})(?:_(n[0-9]{8}))?\.jpe?g", re.IGNORECASE)
_BELOW = ("", "val", "ILSVRC2012_img_val", "Data/CLS-LOC/val", "ILSVRC/Data/CLS-LOC/val")
#: Kaggle's images lie four folders below its table.
_LEVELS = 5
_SOLUTION, _CAFFE = "LOC_val_solution.csv", "val.txt"
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_KITS = ("ILSVRC2012_devkit_t12/data", "data", "")
_MOST_BYTES = 16 << 20  # Kaggle's table has less than 3 MB
_REMEDY = (
    f"put {_SOLUTION}, or the folder ILSVRC2012_devkit_t12, or Caffe's {_CAFFE}, beside the images; "
    "or sort them into folders of classes"
)

#: From the number of an image, from 1, to its class's index; None where it is not known.
_ClassOf = Callable[[int], "int | None"]


class _ValidationImages(NamedTuple):
    """The images of a folder by their numbers, with the WordNet ids in their names, and images beside them."""

    folder: Path
    images: dict[int, Path]
    ids: dict[int, str]
    others: list[Path]


def load_imagenet_validation(source: Path, split: SplitName, *, labelled: bool = True) -> FileDataset | None:
    """Return ImageNet-1k's validation images at ``source``, which may be partial; None if it is no such place.

    ``source`` is the folder of the images, one above it, or the file that has their classes. With Kaggle's folder,
    ``split`` "train" is its training images where they are there.

    Raises:
        DataError: if the images need to be ``labelled`` and their classes are not found, or a file of classes is not
            as it is handed out.

    """
    root = source
    if source.is_file():
        if source.name not in (_SOLUTION, _CAFFE, _TRUTH):
            return None
        root = source.parent.parent.parent if source.name == _TRUTH else source.parent
    found = _images(root)
    if found is None:
        return None
    training = found.folder.parent / "train"
    if split == "train" and found.folder != root and training.is_dir():
        return load_folder(found.folder.parent, split, labelled=labelled)
    numbers = sorted(found.images)
    truth, origin = _truth(found)
    if truth is None:
        if labelled:
            raise DataError(f"{found.folder} has ImageNet's images, but not their classes", remedy=_REMEDY)
        return None
    labels = [truth(number) for number in numbers]
    unknown = [number for number, label in zip(numbers, labels, strict=True) if label is None]
    if unknown:
        others = f" and of {len(unknown) - 1} others" if len(unknown) > 1 else ""
        raise DataError(
            f"{origin} does not tell the class of {found.images[unknown[0]].name}{others}",
            remedy="take these images away" if origin.is_dir() else f"fetch {origin.name} again, or take it away",
        )
    notes = [f"{len(numbers)} of ImageNet's 50,000 validation images, with the classes of {origin}"]
    if found.others:
        notes.append(f"left out {len(found.others)} others in the same folder: {first_shown(found.others)}")
    return FileDataset(
        str(source),
        [found.images[number] for number in numbers],
        np.asarray(labels, dtype=np.int64),
        imagenet_synsets(),
        notes=notes,
    )


def _images(root: Path) -> _ValidationImages | None:
    for below in _BELOW:
        folder = root / below
        if not folder.is_dir():
            continue
        found = _ValidationImages(folder, {}, {}, [])
        for path in children(folder):
            match = _IMAGE.fullmatch(path.name)
            if match is not None and int(match[1]) not in found.images:
                found.images[int(match[1])] = path
                if match[2]:
                    found.ids[int(match[1])] = match[2]
            elif path.suffix.lower() in SUFFIXES:
                found.others.append(path)
        if found.images and not any(map(_has_images, folders_in(folder))):  # else it has folders of classes
            return found
    return None


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in children(folder))


def _truth(found: _ValidationImages) -> tuple[_ClassOf | None, Path]:
    """Return what tells the classes of images, and where it is from."""
    places = {id_: index for index, id_ in enumerate(imagenet_synsets())}
    if len(found.ids) == len(found.images):
        return lambda number: places.get(found.ids[number]), found.folder
    for folder in (found.folder, *found.folder.parents[:_LEVELS]):
        if (file := folder / _SOLUTION).is_file():
            return _of_solution(file, places), file
        if (file := folder / _CAFFE).is_file() and _is_caffes(file):
            return _of_caffe(file), file
        for kit in _KITS:
            if (file := folder / kit / _TRUTH).is_file():
                return _of_devkit(file, places), file
    return None, found.folder


def _of_solution(file: Path, places: Mapping[str, int]) -> _ClassOf:
    """Read lines such as ``ILSVRC2012_val_00048981,n03995372 85 1 499 272``: the class, and boxes."""
    known: dict[int, int | None] = {}
    for line in _lines(file)[1:]:
        match = re.match(r"ILSVRC2012_val_([0-9]{8}),(n[0-9]{8})\b", line)
        if match is None or known.setdefault(int(match[1]), places.get(match[2])) != places.get(match[2]):
            raise _unreadable(file, line)
    return known.get


def _is_caffes(file: Path) -> bool:
    """Say whether ``file`` is of ImageNet: others call files so, too."""
    return any(_IMAGE.fullmatch(line.partition(" ")[0].strip()) for line in _lines(file)[:1])


def _of_caffe(file: Path) -> _ClassOf:
    """Read lines such as ``ILSVRC2012_val_00000001.JPEG 65``: classes are indices in the order of their ids."""
    known: dict[int, int] = {}
    for line in _lines(file):
        match = re.fullmatch(r"ILSVRC2012_val_([0-9]{8})\.jpe?g\s+([0-9]{1,3})", line, re.IGNORECASE)
        if match is None or known.setdefault(int(match[1]), int(match[2])) != int(match[2]):
            raise _unreadable(file, line)
    return known.get


def _of_devkit(file: Path, places: Mapping[str, int]) -> _ClassOf:
    """Read a line for each image in their order, the class's ``ILSVRC2012_ID``, which meta.mat gives the ids of."""
    numbers = _lines(file)
    wrong = next((each for each in numbers if re.fullmatch(r"[0-9]{1,4}", each) is None), None)
    if wrong is not None:
        raise _unreadable(file, wrong)
    ids = _ids_of_devkit(file.with_name(_META))
    classes = [places.get(ids.get(int(number), "")) for number in numbers]
    return lambda number: classes[number - 1] if 0 < number <= len(classes) else None


def _ids_of_devkit(file: Path) -> dict[int, str]:
    """Return the WordNet ids by ``ILSVRC2012_ID``, as MATLAB keeps them."""
    if not file.is_file():
        raise DataError(f"there is no {file}, which says what the classes' numbers mean", remedy=_REMEDY)
    try:
        content = file.read_bytes() if file.stat().st_size <= _MOST_BYTES else b""
        synsets = read_structs(content, "synsets", ("ILSVRC2012_ID", "WNID"))
        return {int(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in synsets}
    except (OSError, ValueError, OverflowError) as error:
        raise _unreadable(file, str(error)) from error


def _lines(file: Path) -> list[str]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise DataError(f"{file} has more than {_MOST_BYTES >> 20} MiB", remedy=_REMEDY)
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}", remedy=_REMEDY) from error


def _unreadable(file: Path, what: str) -> DataError:
    return DataError(
        f"{file} is not as ImageNet has it: {what[:100]!r}", remedy=f"fetch {file.name} again, or {_REMEDY}"
    )
