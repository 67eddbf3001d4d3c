"""Images as arrays: batch by batch for calibration and validation, or all at once for training."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgevit.data.dataset import ArrayDataset, Dataset
from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError, ImageError
from edgevit.futures import in_order
from edgevit.progress import SILENT, Progress

T = TypeVar("T")

_AHEAD = 64  # images that are decoded ahead where nothing else says how many


class PixelCache:
    """Keeps what a model sees of the images that are read first, so that another pass need not decode them again.

    It takes ``most`` bytes: what does not fit is decoded each time.
    """

    def __init__(self, most: int = 64 << 20) -> None:
        self._left = most
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def through(self, read: Callable[[int], NDArray[np.uint8]]) -> Callable[[int], NDArray[np.uint8]]:
        """Return ``read``, of an image's pixels by its number, as it is with the cache; any thread may call it."""

        def cached(index: int) -> NDArray[np.uint8]:
            pixels = self._kept.get(index)
            if pixels is None:
                pixels = read(index)
                with self._lock:
                    if index not in self._kept and pixels.nbytes <= self._left:
                        self._kept[index] = pixels
                        self._left -= pixels.nbytes
            return pixels

        return cached


class Unreadable:
    """Collects the images that could not be read: their names and why, each once."""

    def __init__(self) -> None:
        self.images: dict[str, ImageError] = {}

    def __len__(self) -> int:
        return len(self.images)

    def add(self, name: str, error: ImageError) -> None:
        """Take note of an image that is left out."""
        self.images[name] = error

    @property
    def names(self) -> tuple[str, ...]:
        """What the images are called, sorted."""
        return tuple(sorted(self.images))


class Strict(Unreadable):
    """Does not put up with an image that cannot be read."""

    def add(self, name: str, error: ImageError) -> None:  # noqa: ARG002
        """Raise ``error``."""
        raise error


@dataclass(frozen=True, slots=True)
class Batch:
    """Which images of the data set (B,), and a model's input for them, float32 (B, C, H, W)."""

    indices: NDArray[np.int64]
    images: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pixels:
    """Which images of the data set (N,), and what the model sees of them before normalisation, uint8 (N, H, W, C)."""

    indices: NDArray[np.int64]
    pixels: NDArray[np.uint8]


def batches(
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    batch_size: int,
    indices: NDArray[np.int64] | None = None,
    unreadable: Unreadable,
    cache: PixelCache | None = None,
) -> Iterator[Batch]:
    """Yield the images at ``indices`` (all, if None) in order, ``batch_size`` at a time; the last batch may be smaller.

    A few threads decode ahead, by one batch at most. Images that cannot be read go to ``unreadable`` and are left
    out; ``Strict()`` raises instead. ``cache`` is one of this ``dataset`` with this ``preprocess``.

    Raises:
        DataError: if none of the images can be read.

    """
    if batch_size < 1:
        raise DataError(f"a batch cannot have {batch_size} images", remedy="use a batch size of at least 1")
    stored = _stored(dataset, preprocess)
    if stored is not None:
        chosen = _all_or(indices, dataset)
        for start in range(0, len(chosen), batch_size):
            part = chosen[start : start + batch_size]
            yield Batch(part, preprocess.normalize(stored[part]))
        return
    read = _pixels_of(dataset, preprocess)
    seen = _read(dataset, cache.through(read) if cache else read, indices, unreadable, ahead=batch_size)
    while chunk := list(islice(seen, batch_size)):
        pixels = np.stack([pixels for _, pixels in chunk])
        yield Batch(np.asarray([index for index, _ in chunk], dtype=np.int64), preprocess.normalize(pixels))


def load_pixels(
    dataset: Dataset, preprocess: Preprocess, *, indices: NDArray[np.int64] | None = None, progress: Progress = SILENT
) -> NDArray[np.uint8]:
    """Return what the model sees of all images before normalisation, uint8 (N, H, W, C), in memory.

    Raises:
        ImageError: if an image cannot be read.

    """
    return load_readable(dataset, preprocess, indices=indices, unreadable=Strict(), progress=progress).pixels


def load_readable(
    dataset: Dataset,
    preprocess: Preprocess,
    *,
    unreadable: Unreadable,
    indices: NDArray[np.int64] | None = None,
    progress: Progress = SILENT,
) -> Pixels:
    """Return what the model sees of the images that can be read, and which these are.

    Raises:
        DataError: if none of the images can be read.

    """
    chosen = _all_or(indices, dataset)
    stored = _stored(dataset, preprocess)
    if stored is not None:
        return Pixels(chosen, np.ascontiguousarray(stored[chosen]))
    pixels = np.empty((len(chosen), *preprocess.size, preprocess.channels), dtype=np.uint8)
    kept = []
    seen = _read(dataset, _pixels_of(dataset, preprocess), chosen, unreadable, ahead=_AHEAD)
    for row, (index, image) in enumerate(progress.track(seen, total=len(chosen), label="Reading images")):
        pixels[row] = image
        kept.append(index)
    return Pixels(np.asarray(kept, dtype=np.int64), pixels[: len(kept)])


def readable(dataset: Dataset, *, unreadable: Unreadable, progress: Progress = SILENT) -> NDArray[np.int64]:
    """Return which images can be read (N,); all others go to ``unreadable``. Each is decoded once.

    Raises:
        DataError: if none of the images can be read.

    """
    if isinstance(dataset, ArrayDataset):
        return _all_or(None, dataset)

    def check(index: int) -> None:
        dataset.image(index)

    seen = progress.track(
        _read(dataset, check, None, unreadable, ahead=_AHEAD), total=len(dataset), label="Checking the images"
    )
    return np.asarray([index for index, _ in seen], dtype=np.int64)


def _all_or(indices: NDArray[np.int64] | None, dataset: Dataset) -> NDArray[np.int64]:
    return np.arange(len(dataset), dtype=np.int64) if indices is None else indices


def _stored(dataset: Dataset, preprocess: Preprocess) -> NDArray[np.uint8] | None:
    """Return the pixels of a set in memory if ``preprocess`` neither resizes nor crops nor changes grey and colour."""
    kept = preprocess.pad == "around" and (
        preprocess.fit == "none"
        or (preprocess.fit == "short" and preprocess.resize in (None, min(preprocess.size)))
    )  # fmt: skip
    if not isinstance(dataset, ArrayDataset) or not kept:
        return None
    if dataset.pixels.shape[1:] != (*preprocess.size, preprocess.channels):
        return None
    return dataset.pixels[..., ::-1] if preprocess.channel_order == "BGR" else dataset.pixels


def _pixels_of(dataset: Dataset, preprocess: Preprocess) -> Callable[[int], NDArray[np.uint8]]:
    return lambda index: preprocess.geometry(dataset.image(index))


def _read(
    dataset: Dataset,
    read: Callable[[int], T],
    indices: NDArray[np.int64] | None,
    unreadable: Unreadable,
    *,
    ahead: int,
) -> Iterator[tuple[int, T]]:
    """Yield index and what ``read`` gives for the images that can be read, in order; threads do ``ahead`` more."""
    wanted = range(len(dataset)) if indices is None else indices.tolist()
    seen = 0
    why: ImageError | None = None
    executor = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="edgevit-decode")
    try:
        for index, future in in_order(((index, executor.submit(read, index)) for index in wanted), ahead):
            try:
                result = future.result()
            except ImageError as error:
                unreadable.add(dataset.describe(index), error)
                why = why or error
                continue
            seen += 1
            yield index, result
    finally:
        executor.shutdown(cancel_futures=True)
    if why is not None and not seen:
        raise DataError(
            f"none of the {len(wanted)} images of {dataset.name} can be read: {why.message}", remedy=why.remedy
        )
