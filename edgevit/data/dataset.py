"""What every source of labelled images looks like to the rest of EdgeViT."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevit.errors import DataError


class Dataset(ABC):
    """Labelled images, read one by one.

    ``labels`` (N,) are indices into ``class_names``; -1 marks an image without one.
    """

    name: str
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]

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

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a SHA-256 of what is in the set: the images and their labels, in order."""


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
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(class_names):
            raise DataError(
                f"'{name}' has labels from {labels.min()} to {labels.max()} for {len(class_names)} classes",
                remedy=f"use labels from 0 to {len(class_names) - 1}, or -1 for an image without one",
            )
        self.name = name
        self.pixels = pixels
        self.labels = labels.astype(np.int64)
        self.class_names = class_names

    def image(self, index: int) -> Image.Image:
        """Return image ``index`` as a grey or RGB image."""
        pixels = self.pixels[index]
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)

    def describe(self, index: int) -> str:
        """Return the name of the set and the index."""
        return f"{self.name}[{index}]"

    def fingerprint(self) -> str:
        """Return a SHA-256 of pixels, labels and class names."""
        digest = hashlib.sha256(repr((self.pixels.shape, self.class_names)).encode())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()
