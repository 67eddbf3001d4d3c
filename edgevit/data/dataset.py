"""What every source of labelled images looks like to the rest of EdgeViT."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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
