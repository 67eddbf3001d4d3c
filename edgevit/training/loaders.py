"""Where training batches come from: arrays in memory, files that worker processes decode, or features."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data as torch_data

from edgevit.data.batches import load_pixels
from edgevit.data.dataset import Dataset
from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError, ImageError
from edgevit.progress import Progress
from edgevit.system import usable_cores
from edgevit.training.augment import augment
from edgevit.training.batch_plan import MicroBatch, Purpose
from edgevit.training.distributed import Processes
from edgevit.training.pil_augmentation import augmented_pixels
from edgevit.training.recipe import TrainRecipe

_IN_MEMORY = 1 << 30  # bytes; training images that take no more, as the model sees them, are read once


class Loader(Protocol):
    """Labelled inputs for training: ``labels`` (N,) are class indices.

    ``remedy`` says what would give them sooner, nothing where they cannot be what limits speed.
    """

    labels: NDArray[np.int64]
    remedy: str

    def inputs(self, micro_batches: Sequence[MicroBatch]) -> Iterator[Tensor]:
        """Yield what the model learns from in each: pixels (B, C, H, W), uint8, or features (B, D)."""
        ...


class MemoryLoader:
    """Images in memory as the model sees them before normalisation, uint8 (N, H, W, C), and class indices (N,)."""

    remedy = "augment less"

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], recipe: TrainRecipe) -> None:
        _check(len(pixels), labels)
        self.labels = labels
        self._pixels = pixels
        self._recipe = recipe

    def inputs(self, micro_batches: Sequence[MicroBatch]) -> Iterator[Tensor]:
        """Yield the augmented pixels of each micro-batch."""
        for micro_batch in micro_batches:
            # Of the whole batch, so that its random numbers do not depend on how it is cut into micro-batches.
            batch = augment(
                self._pixels[micro_batch.batch], self._recipe, micro_batch.random(self._recipe, Purpose.AUGMENT)
            )
            yield torch.from_numpy(_planes(batch[micro_batch.places]))


class FileLoader:
    """Images that ``workers`` processes read and augment; with 0 workers, this process does it itself."""

    remedy = "raise workers in the recipe, or save the images at the size that is used"

    def __init__(
        self, dataset: Dataset, labels: NDArray[np.int64], preprocess: Preprocess, recipe: TrainRecipe, workers: int
    ) -> None:
        _check(len(dataset), labels)
        self.labels = labels
        self._keys: list[list[_ImageKey]] = []
        # One loader for all epochs: its workers stay, and read what is in ``_keys`` when an epoch begins.
        self._loader: torch_data.DataLoader[Tensor | _UnreadableImage] = torch_data.DataLoader(
            _Examples(dataset, preprocess, recipe),
            batch_sampler=self._keys,
            num_workers=workers,
            # Not forked: this process has threads, whose locks a fork would copy in whatever state they are in.
            multiprocessing_context="forkserver" if workers else None,
            collate_fn=_stack,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
        )

    def inputs(self, micro_batches: Sequence[MicroBatch]) -> Iterator[Tensor]:
        """Yield the augmented pixels of each micro-batch.

        Raises:
            ImageError: if an image cannot be read.
        """
        self._keys[:] = [
            [
                _ImageKey(micro_batch.epoch, micro_batch.step, place, int(micro_batch.batch[place]))
                for place in range(micro_batch.start, micro_batch.stop)
            ]
            for micro_batch in micro_batches
        ]
        for item in self._loader:
            if isinstance(item, _UnreadableImage):
                raise ImageError(item.message, remedy=item.remedy)
            yield item


class FeatureLoader:
    """What a frozen backbone made of the images, computed once, float32 (N, D)."""

    remedy = ""  # an epoch is over in a moment

    def __init__(self, features: Tensor, labels: NDArray[np.int64]) -> None:
        _check(len(features), labels)
        self.labels = labels
        self._features = features

    def inputs(self, micro_batches: Sequence[MicroBatch]) -> Iterator[Tensor]:
        """Yield the features of each micro-batch."""
        for micro_batch in micro_batches:
            yield self._features[torch.from_numpy(micro_batch.indices)]


def loader_of(
    training: Dataset,
    labels: NDArray[np.int64],
    preprocess: Preprocess,
    recipe: TrainRecipe,
    workers: int,
    progress: Progress,
) -> Loader:
    """Return what reads ``training`` once, where the recipe and its size allow that, else each time, by ``workers``."""
    size = len(training) * math.prod(preprocess.size) * preprocess.channels
    if size <= _IN_MEMORY and not recipe.draws_on_whole_images:
        return MemoryLoader(load_pixels(training, preprocess, progress=progress), labels, recipe)
    return FileLoader(training, labels, preprocess, recipe, workers)


def workers_of(asked: int | None, processes: Processes) -> int:
    """Return how many processes read images for this one: as ``asked``, else one for each core, up to 8."""
    if asked is not None:
        return asked
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if processes.count > 1 else 1
    return max(1, min(8, usable_cores() // here))


class Stopwatch:
    """Passes items on and measures how long it had to wait for them, in seconds."""

    def __init__(self, items: Iterator[Tensor]) -> None:
        self._items = items
        self.waited = 0.0

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the items."""
        while True:
            started = time.monotonic()
            item = next(self._items, None)
            self.waited += time.monotonic() - started
            if item is None:
                return
            yield item


@dataclass(frozen=True, slots=True)
class _ImageKey:
    epoch: int
    step: int
    place: int
    index: int


@dataclass(frozen=True, slots=True)
class _UnreadableImage:
    """Carries an ImageError out of a worker process: exceptions with a remedy do not travel."""

    message: str
    remedy: str


class _Examples(torch_data.Dataset[Tensor | _UnreadableImage]):
    """One training image at a time, changed at random as its key says and not by who reads it."""

    def __init__(self, dataset: Dataset, preprocess: Preprocess, recipe: TrainRecipe) -> None:
        self._dataset = dataset
        self._preprocess = preprocess
        self._recipe = recipe

    def __getitem__(self, key: _ImageKey) -> Tensor | _UnreadableImage:
        random = np.random.default_rng([self._recipe.seed, key.epoch, key.step, Purpose.IMAGE, key.place])
        try:
            pixels = augmented_pixels(self._dataset.image(key.index), self._preprocess, self._recipe, random)
        except ImageError as error:
            return _UnreadableImage(f"{self._dataset.describe(key.index)}: {error.message}", error.remedy)
        return torch.from_numpy(_planes(augment(pixels[None], self._recipe, random))[0])


def _stack(items: list[Tensor | _UnreadableImage]) -> Tensor | _UnreadableImage:
    whole = [item for item in items if isinstance(item, Tensor)]
    return torch.stack(whole) if len(whole) == len(items) else next(i for i in items if isinstance(i, _UnreadableImage))


def _planes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.moveaxis(pixels, -1, -3))


def _check(images: int, labels: NDArray[np.int64]) -> None:
    if images == 0 or images != len(labels):
        raise DataError(
            f"there are {images} images and {len(labels)} labels",
            remedy="give a folder or CSV with labelled images",
        )
