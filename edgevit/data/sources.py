"""Opens the images that a user names, and draws samples of them."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgevit.data.csv_table import load_csv
from edgevit.data.dataset import Dataset, FileDataset, Subset
from edgevit.data.fashion_mnist import load_fashion_mnist, load_fashion_mnist_sample
from edgevit.data.folder import load_folder
from edgevit.data.imagenet_validation import load_imagenet_validation
from edgevit.data.labels import map_labels as map_labels  # where others look for it
from edgevit.data.listing import ENDING, load_listing
from edgevit.data.shapes import load_shapes
from edgevit.data.splits import SplitName
from edgevit.errors import DataError
from edgevit.files import expanded
from edgevit.progress import SILENT, Progress

Split = Literal["train", "test"]
_TABLES = (".csv", ".tsv", ".txt")  # the last is Excel's "Unicode text"

BUILT_IN = {
    "fashion-mnist-sample": "2,000 test and 500 training images of Fashion-MNIST, in the package",
    "fashion-mnist": "70,000 grey images of clothing, 28x28, 10 classes",
    "shapes": "procedural colour images, 8 classes; options as in shapes:size=64,count=2000,seed=1",
}
"""What ``load_dataset`` knows by name."""


def load_dataset(
    source: str,
    *,
    split: SplitName,
    root: Path | None = None,
    labelled: bool = True,
    progress: Progress = SILENT,
) -> Dataset:
    """Return the images of ``source`` for ``split``; a folder of images without classes, if they need no labels.

    ``source`` is a name from ``BUILT_IN``, an image folder (see ``load_folder``) or a CSV (see ``load_csv``), whose
    paths are relative to ``root``, else to the CSV. A folder or file named as a built-in set is reached as "./NAME".

    Raises:
        DataError: if there is no such source, or its images or labels cannot be used.
        MissingDataError: if it would have to be downloaded, and cannot be.

    """
    name, _, options = source.partition(":")
    part: Split = "train" if split == "train" else "test"
    if name == "shapes":
        return load_shapes(part, options)
    if source == "fashion-mnist":
        return load_fashion_mnist(part, progress=progress)
    if source == "fashion-mnist-sample":
        return load_fashion_mnist_sample(part)
    found = _from_files(source, split, root, labelled=labelled)
    for note in found.notes:
        progress.note(note)
    return found


def _from_files(source: str, split: SplitName, root: Path | None, *, labelled: bool) -> FileDataset:
    path = expanded(source)
    imagenet = load_imagenet_validation(path, split, labelled=labelled) if root is None else None
    if imagenet is not None:
        return imagenet
    if path.is_dir():
        return load_folder(path, split, labelled=labelled)
    if path.is_file() and path.suffix.lower() in _TABLES:
        return load_csv(path, root, split)
    if path.is_file() and path.name.endswith(ENDING):
        return load_listing(path)
    raise _unknown(source, path)


def _unknown(source: str, path: Path) -> DataError:
    known = f"give an image folder, a .csv file, or one of {', '.join(BUILT_IN)}"
    if path.exists():
        return DataError(f"{path} is neither a folder nor a .csv file", remedy=known)
    if os.sep in source or path.suffix:
        return DataError(f"there is no folder or file {path}", remedy=f"check the path; {known}")
    near = difflib.get_close_matches(source, BUILT_IN, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return DataError(f"there is no data set or folder '{source}'", remedy=f"{hint}{known}")


def subset(dataset: Dataset, count: int, *, seed: int, balanced: bool) -> Dataset:
    """Return ``count`` images of ``dataset`` (all, if it has no more), drawn without replacement.

    With ``balanced`` classes take turns until they run out, so that the beginning of the sample is balanced, too.

    Raises:
        DataError: if ``count`` is below 1.

    """
    if count < 1:
        raise DataError(f"a sample cannot have {count} images", remedy="ask for at least 1 image")
    order = np.random.default_rng(seed).permutation(len(dataset)).astype(np.int64)
    if balanced:
        order = order[np.argsort(_turns(dataset.labels[order]), kind="stable")]
    return Subset(dataset, order[:count])


def _turns(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each entry how many before it have the same label."""
    turns = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        turns[places] = np.arange(len(places))
    return turns
