"""The images of a stage, read as the bundle's model takes them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.manifest import Manifest
from edgevit.bundle.reading import logical_path
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Batch, Unreadable, batches
from edgevit.data.dataset import Dataset, FileDataset, Subset
from edgevit.data.labels import check_sets, map_labels, map_several
from edgevit.data.preprocess import Preprocess
from edgevit.data.sources import BUILT_IN, Split, load_dataset, subset
from edgevit.errors import BundleError, DataError, ImageError
from edgevit.files import expanded
from edgevit.progress import SILENT, Progress
from edgevit.quantization.calibration.calibration_table import FILE_NAME, CalibrationTable
from edgevit.quantization.calibration.pixels import PixelStatistics

#: One in so many images is kept apart where none is left to judge by.
_PART = 4


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where images come from, as a user says it; ``unreadable`` collects those that could not be read.

    ``samples`` draws that many of them, the same number of each class where they have labels; None takes all.
    ``dataset`` are the images themselves, where they are at hand already.
    """

    name: str
    split: Split
    unreadable: Unreadable
    root: Path | None = None
    samples: int | None = None
    seed: int = 0
    dataset: Dataset | None = None

    def checked(self) -> DataSource:
        """Return the same, if there is something of that name; for a check before what takes longer.

        Raises:
            DataError: if there is not.
        """
        name, _, _ = self.name.partition(":")
        if self.dataset is None and name not in BUILT_IN and not expanded(self.name).exists():
            load_dataset(self.name, split=self.split)  # says what may be meant
        return self

    def _all(self, progress: Progress) -> Dataset:
        if self.dataset is not None:
            return self.dataset
        return load_dataset(self.name, split=self.split, root=self.root, labelled=False, progress=progress)

    def load(self, progress: Progress = SILENT) -> Dataset:
        """Return the images.

        Raises:
            DataError: if there are none.
            MissingDataError: if they are not on this machine and cannot be fetched.
        """
        dataset = self._all(progress)
        if self.samples is None or self.samples >= len(dataset):
            return dataset
        return subset(dataset, self.samples, seed=self.seed, balanced=bool((dataset.labels >= 0).all()))

    def load_beside(self, most: int, progress: Progress = SILENT) -> tuple[Dataset, Dataset]:
        """Return images as ``load`` does, and others to judge by, then these too where there are fewer than ``most``.

        Raises:
            DataError: if there are none.
            MissingDataError: if they are not on this machine and cannot be fetched.
        """
        dataset = self._all(progress)
        order = self._order(dataset)
        samples = min(self.samples or len(order), len(order))
        drawn = dataset if samples == len(order) else Subset(dataset, order[:samples])
        others = len(order) - samples
        return drawn, Subset(dataset, np.concatenate([order[samples:], order[: max(0, most - others)]]))

    def _order(self, dataset: Dataset) -> NDArray[np.int64]:
        """Return the indices of ``dataset`` as ``load`` draws them."""
        drawn = subset(dataset, len(dataset), seed=self.seed, balanced=bool((dataset.labels >= 0).all()))
        return drawn.indices if isinstance(drawn, Subset) else np.arange(len(dataset))

    def load_apart(self, most: int, progress: Progress = SILENT) -> tuple[Dataset, Dataset]:
        """Return images as ``load`` does, and up to ``most`` more to judge by that have none of these among them.

        Where too few are left (a quarter of those that ``load`` draws), a quarter of all is kept apart instead. Images
        are told apart by their content.

        Raises:
            DataError: if there are none, or all are the same.
            MissingDataError: if they are not on this machine and cannot be fetched.
        """
        dataset = self._all(progress)
        order = self._order(dataset)
        samples = min(self.samples or len(order), len(order))
        chosen, apart = order[:samples], order[samples:]
        if len(apart) < max(1, samples // _PART):
            part = max(len(order) // _PART, min(len(order) - 1, 1))  # the first ones are of all classes alike
            chosen, apart = order[part:][:samples], order[:part]
        looked_at = progress.track(chosen.tolist(), total=len(chosen), label="Looking for duplicate images")
        fitted = {_content(dataset, index) for index in looked_at}
        others = (index for index in apart.tolist() if _content(dataset, index) not in fitted)
        held_out = np.array(list(islice(others, most)), dtype=np.int64)
        if not len(held_out):
            raise DataError(
                f"{self.name} has no image to judge by beside those to calibrate with",
                remedy="give more images with --data: at least two that differ, better 256",
            )
        return Subset(dataset, chosen), Subset(dataset, held_out)


def _content(dataset: Dataset, index: int) -> str:
    """Return a hash of an image; of one that cannot be read, its name: it is left out later, and noted then."""
    try:
        return dataset.image_sha256(index)
    except ImageError:
        return dataset.describe(index)


def shared_images(calibration: Dataset, test: Dataset) -> str | None:
    """Return a note where images to calibrate with are also images to measure on, or None.

    Files are told apart by their paths, images of a built-in set by the name of the set: those have parts of their own.
    """
    common = len(_paths(calibration) & _paths(test))
    if not common:
        return None
    return (
        f"{common} of the {len(calibration)} calibration images are also measured on, which may flatter INT8 a little: "
        "give others by --calibration-data, or lay them out as train/CLASS/image.jpg and test/CLASS/image.jpg"
    )


def calibrated_on(bundle: Bundle) -> frozenset[str]:
    """Return the hashes of the images that variants of ``bundle`` were calibrated on; none where that is not known."""
    hashes: set[str] = set()
    for path in map(logical_path, bundle.manifest.extra):
        if PurePosixPath(path).name == FILE_NAME:
            with suppress(BundleError):  # damaged, or of another version: whoever needs it says so
                hashes.update(CalibrationTable.load(bundle.verify_extra(path).path).image_hashes)
    return frozenset(hashes)


def _paths(dataset: Dataset) -> set[str]:
    if isinstance(dataset, Subset):
        whole = dataset.dataset
        return {os.path.realpath(whole.paths[i]) for i in dataset.indices} if isinstance(whole, FileDataset) else set()
    return {os.path.realpath(path) for path in dataset.paths} if isinstance(dataset, FileDataset) else set()


#: Fewer images than this hardly show what ranges activations take.
_FEW = 16


#: Share of the images that must look alike before a word is said about it.
_NEARLY_ALL = 0.9

#: Mean and deviation of preprocessed pixels that photos do not have: they are near 0 and 1, or 0.5 and 0.25.
_FAR_OFF = 1.5
_DEVIATIONS = (0.1, 3.0)


def data_warnings(dataset: Dataset, pixels: PixelStatistics | None = None) -> list[str]:
    """Return what speaks against calibrating on ``dataset``, as sentences for the user; nothing if all looks well.

    ``pixels`` is how its images look to the model.
    """
    return _warnings_of_number(dataset) + (_warnings_of_looks(pixels) if pixels else [])


def _warnings_of_looks(pixels: PixelStatistics) -> list[str]:
    most = _NEARLY_ALL * pixels.images
    if pixels.flat >= most:
        return [f"{pixels.flat:.0f} of {pixels.images:.0f} calibration images are of one colour: ranges will not do"]
    found = []
    if pixels.images > 1 and pixels.repeated >= most - 1:
        found.append(f"{pixels.repeated + 1:.0f} of {pixels.images:.0f} calibration images are the same image")
    if pixels.grey >= most:
        found.append("The calibration images have no colour, and the model takes colour: are they of its kind?")
    if abs(pixels.mean) > _FAR_OFF or not _DEVIATIONS[0] <= pixels.deviation <= _DEVIATIONS[1]:
        found.append(
            f"Preprocessed calibration images have mean {pixels.mean:.2f} and standard deviation "
            f"{pixels.deviation:.2f}, far from what photos have: are they of the model's kind, "
            "and are its mean and std right?"
        )
    return found


def _warnings_of_number(dataset: Dataset) -> list[str]:
    found = []
    if len(dataset) < _FEW:
        found.append(
            f"Only {len(dataset)} image{'s' * (len(dataset) > 1)} to calibrate on: "
            "ranges may be too narrow, give 128 or so"
        )
    elif np.unique(dataset.labels).size == 1 and dataset.labels[0] >= 0:
        found.append("All calibration images are of one class: ranges may be too narrow for the others")
    return found


def several_labels(manifest: Manifest) -> bool:
    """Return whether a model may give an image several labels: each of its logits decides on one of them."""
    return manifest.independent and manifest.classes > 1


@dataclass(frozen=True, slots=True)
class LabelledBatches:
    """Images of a data set that a model can be measured on, with their labels as its class indices if it has any."""

    dataset: Dataset
    labels: NDArray[np.int64] | None
    indices: NDArray[np.int64]

    @classmethod
    def of(cls, dataset: Dataset, model_labels: Sequence[str], *, several: bool = False) -> LabelledBatches:
        """Take the labelled images of ``dataset``, or all of them where none has a label.

        An embedding model has no labels of its own; the data set's then tell which images are of one kind. Where an
        image may have ``several`` labels, ``labels`` are (N, labels) of 0 and 1; a data set that names one for each
        does not say which are right: all images are taken, without labels.

        Raises:
            DataError: if a label is not one of the model's.
        """
        if (dataset.labels < 0).all():
            return cls(dataset, None, np.arange(len(dataset)))
        if several:
            truth = map_several(dataset, tuple(model_labels))
            if truth is None:  # a name that is no label may be several, written in a way that is not read
                map_labels(dataset, tuple(model_labels))
            known = np.ones(len(dataset), dtype=np.bool_) if truth is None else dataset.labels >= 0
            return cls(dataset, truth, np.flatnonzero(known))
        check_sets(dataset)
        labels = map_labels(dataset, tuple(model_labels)) if model_labels else dataset.labels
        return cls(dataset, labels, np.flatnonzero(labels >= 0))

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, preprocess: Preprocess, *, batch_size: int, unreadable: Unreadable) -> Iterator[Batch]:
        """Yield the images batch by batch; what cannot be read is left out and noted in ``unreadable``."""
        yield from batches(self.dataset, preprocess, batch_size=batch_size, indices=self.indices, unreadable=unreadable)
