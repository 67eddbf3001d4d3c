"""Where images come from: from what the user typed to a Dataset, its labels in a model's terms, and samples of it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgevit.data.dataset import Dataset, FileDataset, Subset
from edgevit.data.fashion_mnist import load_fashion_mnist, load_fashion_mnist_sample
from edgevit.data.folder import load_folder
from edgevit.data.imagenet import imagenet_labels, imagenet_synsets, is_imagenet, wordnet_id
from edgevit.data.names import plain
from edgevit.data.shapes import load_shapes
from edgevit.data.splits import SplitName
from edgevit.data.table import load_csv
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


def load_dataset(source: str, *, split: SplitName, root: Path | None = None, progress: Progress = SILENT) -> Dataset:
    """Return the images of ``source`` for ``split``.

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
    found = _from_files(source, split, root)
    for note in found.notes:
        progress.note(note)
    return found


def _from_files(source: str, split: SplitName, root: Path | None) -> FileDataset:
    path = expanded(source)
    if path.is_dir():
        return load_folder(path, split)
    if path.is_file() and path.suffix.lower() in _TABLES:
        return load_csv(path, root, split)
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


def map_labels(dataset: Dataset, model_labels: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the labels (N,) of ``dataset`` as indices into ``model_labels``; -1 stays -1.

    Classes are matched by name if every class that occurs has a match; case, underscores, spaces and the Unicode form
    do not count, and where a name lists synonyms ("tench, Tinca tinca") one of them is enough. A model of ImageNet-1k's
    classes knows WordNet's ids ("n01440764"), too. Otherwise class names that are all whole numbers are taken as
    indices.

    Raises:
        DataError: if an index is out of the model's range (the first such image is named), or names have no match.

    """
    used = [int(label) for label in np.unique(dataset.labels) if label >= 0]
    names = [dataset.class_names[label] for label in used]
    matches = match_labels(names, model_labels)
    found = [match for match in matches if match is not None]
    table = np.full(len(dataset.class_names) + 1, -1, dtype=np.int64)  # its last entry serves label -1
    if len(found) == len(names):
        table[used] = found
    elif all(name.isascii() and name.isdigit() for name in names):
        indices = [int(name) for name in names]
        _check_range(dataset, used, indices, model_labels)
        table[used] = indices
    else:
        raise _unmatched([name for name, match in zip(names, matches, strict=True) if match is None], model_labels)
    return table[dataset.labels]


def match_labels(names: Sequence[str], model_labels: tuple[str, ...]) -> list[int | None]:
    """Return for each of ``names`` the one model label that means the same (see ``map_labels``), None without one."""
    known = _label_index(model_labels)
    if is_imagenet(model_labels):
        # Ids go by the place in ImageNet's order; a model whose labels are ids knows the names, too.
        known = _label_index(imagenet_labels()) | known
        ids = {synset: index for index, synset in enumerate(imagenet_synsets())}
        return [_by_id(name, ids, known) for name in names]
    return [_match(name, known) for name in names]


def _by_id(name: str, ids: dict[str, int], known: dict[str, int]) -> int | None:
    synset = wordnet_id(name)
    return _match(name, known) if synset is None else ids.get(synset)


def _label_index(model_labels: tuple[str, ...]) -> dict[str, int]:
    """Index labels by their whole name and, where it means one label alone, by each synonym."""
    whole: dict[str, list[int]] = {}
    synonyms: dict[str, list[int]] = {}
    for position, label in enumerate(model_labels):
        whole.setdefault(plain(label), []).append(position)
        for synonym in {plain(part) for part in label.split(",")}:
            synonyms.setdefault(synonym, []).append(position)
    by_name = {name: positions[0] for name, positions in synonyms.items() if len(positions) == 1}
    return by_name | {name: positions[0] for name, positions in whole.items() if len(positions) == 1}


def _match(name: str, known: dict[str, int]) -> int | None:
    candidates = [plain(name), *(plain(part) for part in name.split(","))]
    return next((known[candidate] for candidate in candidates if candidate in known), None)


def _check_range(dataset: Dataset, used: list[int], indices: list[int], model_labels: tuple[str, ...]) -> None:
    beyond = [label for label, index in zip(used, indices, strict=True) if index >= len(model_labels)]
    if beyond:
        first = int(np.flatnonzero(np.isin(dataset.labels, beyond))[0])
        label = dataset.class_names[int(dataset.labels[first])]
        raise DataError(
            f"{dataset.describe(first)} has label {label}, but the model has {len(model_labels)} classes",
            remedy=f"use labels from 0 to {len(model_labels) - 1}, or the names of the model's classes",
        )


def _unmatched(names: list[str], model_labels: tuple[str, ...]) -> DataError:
    listed = ", ".join(f"'{name}'" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    some = ", ".join(f"'{label}'" for label in model_labels[:5])
    return DataError(
        f"the model has no class called {listed}",
        remedy=f"name the classes as the model does ({some}, ...), or give class indices in a CSV",
    )


def subset(dataset: Dataset, count: int, *, seed: int, balanced: bool) -> Dataset:
    """Return ``count`` images of ``dataset`` (all, if it has no more), drawn without replacement.

    With ``balanced`` classes take turns until they run out, so that the beginning of the sample is balanced, too.

    Raises:
        DataError: if ``count`` is below 1.

    """
    if count < 1:
        raise DataError(f"a sample of {count} images is no sample", remedy="ask for at least 1 image")
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
