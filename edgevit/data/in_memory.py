"""Images that a program has at hand: arrays, Pillow images, paths or bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from edgevit.data.dataset import Dataset
from edgevit.data.images import ImageSource, decode_image
from edgevit.errors import DataError


class ImageList(Dataset):
    """Images in a sequence, each decoded when it is looked at; ``labels`` are class indices or class names.

    Raises:
        DataError: if there is no image, not one label for each, or labels are of several kinds.

    """

    def __init__(self, images: Sequence[ImageSource], labels: Sequence[int | str] | None = None) -> None:
        if not len(images):
            raise DataError("there are no images", remedy="give at least one, better 128")
        if labels is not None and len(labels) != len(images):
            raise DataError(
                f"there are {len(labels)} labels for {len(images)} images", remedy="give one label for each image"
            )
        indices, names = _indexed(labels) if labels is not None else (np.full(len(images), -1), ())
        super().__init__("the given images", indices, names)
        self.indexed = labels is not None and not isinstance(labels[0], str)
        self.images = images

    def image(self, index: int) -> Image.Image:
        """Return image ``index``, decoded."""
        return decode_image(self.images[index])

    def describe(self, index: int) -> str:
        """Return the image's path, or its place in the sequence."""
        image = self.images[index]
        return os.fsdecode(image) if isinstance(image, (str, os.PathLike)) else f"image {index}"


def _indexed(labels: Sequence[int | str]) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], tuple[str, ...]]:
    """Return labels as indices into names; class indices are names until a model gives them others."""
    if all(isinstance(label, str) for label in labels):
        names = sorted({str(label) for label in labels})
    elif all(isinstance(label, (int, np.integer)) and not isinstance(label, bool) and label >= 0 for label in labels):
        names = [str(index) for index in sorted({int(label) for label in labels})]
    else:
        raise DataError(
            "labels are neither all names nor all class indices", remedy="give strings, or whole numbers from 0 on"
        )
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[str(label)] for label in labels], dtype=np.int64), tuple(names)
