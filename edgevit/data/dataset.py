"""The interface of every source of labelled images."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevit.data.images import decode_image
from edgevit.errors import DataError, ImageError
from edgevit.files import sha256_of
from edgevit.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class LabelSets:
    """Labels of which an image may have any number: their ``names``, and those that each class stands for."""

    names: tuple[str, ...]
    of_class: tuple[tuple[str, ...], ...]


class Dataset(ABC):
    """Labelled images, read one by one; reading is safe from several threads at once.

    ``labels`` (N,) are indices into ``class_names``; -1 marks an image without one. Where the source says of each label
    whether an image has it, there are ``sets``, and a class is one combination of them.

    Raises:
        DataError: if a label is not an index into ``class_names``.

    """

    def __init__(self, name: str, labels: NDArray[np.int64], class_names: tuple[str, ...]) -> None:
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(class_names):
            raise DataError(
                f"'{name}' has labels from {labels.min()} to {labels.max()} for {len(class_names)} classes",
                remedy=f"use labels from 0 to {len(class_names) - 1}, or -1 for an image without one",
            )
        self.name = name
        #: Whether classes are known by a model's indices alone: their names are these, whatever the model's are.
        self.indexed = False
        self.labels = labels.astype(np.int64)
        self.class_names = class_names
        self.sets: LabelSets | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Return image ``index``, decoded.

        Raises:
            ImageError: if it cannot be read.

        """

    @abstractmethod
    def describe(self, index: int) -> str:
        """Return what to call image ``index`` in a message, such as its path."""

    def short_name(self, index: int) -> str:
        """Return what to call image ``index`` in a report that others read: without the folders of this machine."""
        return self.describe(index)

    def image_sha256(self, index: int) -> str:
        """Return a SHA-256 of image ``index``: of its pixels, or of its file where it has one.

        Raises:
            ImageError: if it cannot be read.

        """
        image = self.image(index)
        return hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).hexdigest()

    def fingerprint(self, progress: Progress = SILENT) -> str:
        """Return a SHA-256 of what is in the set: the class names, and the images and their labels, in order.

        Raises:
            ImageError: if an image cannot be read.

        """
        return self.fingerprint_of(self.image_hashes(progress))

    def image_hashes(self, progress: Progress = SILENT) -> list[str]:
        """Return the SHA-256 of each image, in order.

        Raises:
            ImageError: if an image cannot be read.

        """
        indices = progress.track(range(len(self)), total=len(self), label="Hashing the images")
        return [self.image_sha256(index) for index in indices]

    def fingerprint_of(self, hashes: Sequence[str]) -> str:
        """Return the ``fingerprint`` by the ``image_hashes``."""
        digest = hashlib.sha256(repr(tuple(self.class_names)).encode())
        for label, each in zip(self.labels.tolist(), hashes, strict=True):
            digest.update(f"{label}:{each};".encode())
        return digest.hexdigest()


class ArrayDataset(Dataset):
    """Images of one size that lie in memory.

    ``pixels`` is uint8 (N, H, W, C) with C 1 (grey) or 3 (RGB).

    Raises:
        DataError: if pixels and labels do not fit together.

    """

    def __init__(
        self, name: str, pixels: NDArray[np.uint8], labels: NDArray[np.int64], class_names: tuple[str, ...]
    ) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
            raise DataError(
                f"'{name}' has pixels of type {pixels.dtype} and shape {pixels.shape}",
                remedy="give uint8 pixels of shape (images, height, width, 1 or 3)",
            )
        if labels.shape != (len(pixels),):
            raise DataError(
                f"'{name}' has {len(pixels)} images but labels of shape {labels.shape}",
                remedy="give one label for each image",
            )
        super().__init__(name, labels, class_names)
        self.pixels = pixels

    def image(self, index: int) -> Image.Image:
        """Return image ``index`` as a grey or RGB image."""
        pixels = self.pixels[index]
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)

    def describe(self, index: int) -> str:
        """Return the name of the set and the index."""
        return f"{self.name}[{index}]"


class FileDataset(Dataset):
    """Images in files; ``places`` says for each where it was listed, if elsewhere than in its folder.

    ``notes`` are for the user: what was assumed, and what is left out.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        labels: NDArray[np.int64],
        class_names: tuple[str, ...],
        places: Sequence[str] | None = None,
        notes: Sequence[str] = (),
        sets: LabelSets | None = None,
    ) -> None:
        super().__init__(name, labels, class_names)
        self.sets = sets
        self.notes = tuple(notes)
        self.paths = tuple(paths)
        self._places = places

    def image(self, index: int) -> Image.Image:
        """Return image ``index``, decoded."""
        return decode_image(self.paths[index])

    def describe(self, index: int) -> str:
        """Return the path, and where it was listed."""
        path = str(self.paths[index])
        return f"{path} ({self._places[index]})" if self._places else path

    def short_name(self, index: int) -> str:
        """Return the name of the file, and of the folder that it is in, which may name its class."""
        return "/".join(self.paths[index].parts[-2:]).lstrip("/")

    def image_sha256(self, index: int) -> str:
        """Return the SHA-256 of the file.

        Raises:
            ImageError: if it cannot be read.

        """
        path = self.paths[index]
        try:
            return sha256_of(path)
        except OSError as error:
            raise ImageError(
                f"cannot read {path}: {error.strerror}", remedy="make it readable, or take it out of the data set"
            ) from error


class Subset(Dataset):
    """Some images of another data set, in the order of ``indices``."""

    def __init__(self, dataset: Dataset, indices: NDArray[np.int64]) -> None:
        super().__init__(dataset.name, dataset.labels[indices], dataset.class_names)
        self.indexed = dataset.indexed
        self.sets = dataset.sets
        self.dataset = dataset
        self.indices = indices

    def image(self, index: int) -> Image.Image:
        """Return image ``index`` of the subset, decoded."""
        return self.dataset.image(int(self.indices[index]))

    def describe(self, index: int) -> str:
        """Return what the whole set calls the image."""
        return self.dataset.describe(int(self.indices[index]))

    def short_name(self, index: int) -> str:
        """Return what the whole set does."""
        return self.dataset.short_name(int(self.indices[index]))

    def image_sha256(self, index: int) -> str:
        """Return what the whole set says."""
        return self.dataset.image_sha256(int(self.indices[index]))
