"""The splits of a data set: training, validation and test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevit.data.batches import Unreadable, readable
from edgevit.data.csv_table import csv_splits
from edgevit.data.dataset import ArrayDataset, Dataset, Subset
from edgevit.data.folder import split_names
from edgevit.data.labels import check_one_label
from edgevit.data.names import check_shown
from edgevit.data.sources import load_dataset
from edgevit.data.splits import SplitName
from edgevit.errors import DataError
from edgevit.files import expanded
from edgevit.progress import Progress
from edgevit.training.recipe import TrainRecipe

_NO_TEST = "{} has no test images: accuracy is measured only during training"


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Where images come from, as a user says it: see ``load_dataset``. What cannot be read goes to ``unreadable``."""

    name: str
    unreadable: Unreadable
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class TrainingSplits:
    """No image of one split is in another, and each can be read; ``notes`` say where they came from."""

    training: Dataset
    validation: Dataset | None
    test: Dataset | None
    notes: tuple[str, ...]


def load_splits(data: TrainingData, recipe: TrainRecipe, progress: Progress) -> TrainingSplits:
    """Return the splits of ``data``; there is a validation split only if the recipe stops early by it.

    Validation images are those of the data's own validation folder, else a share of the training images. Test images
    never choose anything; a folder or CSV without a test split has none. Each image is decoded once, so that one that
    cannot be read is known before hours are spent, and every process and every resumed run leaves out the same ones.

    Raises:
        DataError: if the images or their labels cannot be used.
        MissingDataError: if they would have to be downloaded, and cannot be.
    """

    def load(split: SplitName) -> Dataset:
        return whole(load_dataset(data.name, split=split, root=data.root, progress=progress))

    def whole(dataset: Dataset) -> Dataset:
        found = np.zeros(len(dataset), dtype=bool)
        found[readable(dataset, unreadable=data.unreadable, progress=progress)] = True
        return dataset if found.all() else _take(dataset, found)

    own = _own_splits(data.name)
    training = load("train")
    _check(training)
    if expanded(data.name).is_file():
        check_one_label(training)
    if recipe.patience == 0:
        # Validation images serve as a test where nothing is chosen by them; load_dataset sees to it.
        watched = load("test") if own & {"test", "validation"} else None
        return TrainingSplits(training, None, watched, () if watched is not None else (_NO_TEST.format(data.name),))
    test = load("test") if "test" in own else None
    if "validation" in own:
        validation = load("validation")
        notes = [f"the best epoch is chosen by the {len(validation)} images for validation"]
    else:
        training, validation = _hold_out(training, recipe)
        notes = [f"the best epoch is chosen by {len(validation)} training images, which are held out"]
    if test is None:
        notes.append("there are no test images: the accuracy is on the images that chose the epoch, and so optimistic")
    return TrainingSplits(training, validation, test, tuple(notes))


def _own_splits(data: str) -> frozenset[str]:
    path = expanded(data)
    if path.is_dir():
        return split_names(path)
    return csv_splits(path) if path.is_file() else frozenset({"train", "test"})


def _check(training: Dataset) -> None:
    if len(training.class_names) < 2:
        raise DataError(
            f"{training.name} has {len(training.class_names)} class, and a classifier needs at least two",
            remedy="add a folder with images of what is not of that class",
        )
    check_shown(training.class_names, training.name)
    if (training.labels < 0).any():
        raise DataError(f"{training.name} has images without a label", remedy="label them, or leave them out")


def _hold_out(training: Dataset, recipe: TrainRecipe) -> tuple[Dataset, Dataset]:
    """Return the training images without a share of each class, and that share."""
    random = np.random.default_rng(recipe.seed)
    held = np.zeros(len(training), dtype=bool)
    for label in np.unique(training.labels):
        places = random.permutation(np.flatnonzero(training.labels == label))
        held[places[: round(recipe.validation_share * len(places))]] = True
    if not held.any():
        raise DataError(
            f"{recipe.validation_share:.0%} of the {len(training)} images is too few to validate on",
            remedy="raise validation_share in the recipe, add images, or set patience = 0",
        )
    return _take(training, ~held), _take(training, held)


def _take(dataset: Dataset, mask: NDArray[np.bool_]) -> Dataset:
    if isinstance(dataset, ArrayDataset):
        return ArrayDataset(dataset.name, dataset.pixels[mask], dataset.labels[mask], dataset.class_names)
    return Subset(dataset, np.flatnonzero(mask).astype(np.int64))
