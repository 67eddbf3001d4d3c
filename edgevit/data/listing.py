"""Images of any data set as files of one folder, and a JSON file that says all that the data set said of them.

It is how images go to another machine: labels, classes and what images are called mean there what they mean here,
whatever layout they come from.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgevit.data.batches import Unreadable
from edgevit.data.dataset import Dataset, FileDataset, LabelSets, Subset
from edgevit.errors import BundleError, DataError, ImageError
from edgevit.json_file import JSONFile
from edgevit.progress import Progress

#: How the name of the JSON file ends; beside it lie the images.
ENDING = ".images.json"

_Text = Annotated[str, msgspec.Meta(max_length=4096)]
_FileName = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class ListedSets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``LabelSets``, in JSON."""

    names: tuple[_Text, ...]
    of_class: tuple[tuple[_Text, ...], ...]


class Listing(JSONFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data set: for each image its label, an index into ``class_names`` or -1, its file, and what it is called.

    Files are named by their SHA-256. Where ``pixels`` is set they were made of pixels that lay in no file; their
    fingerprint is that of the pixels.
    """

    what: ClassVar[str] = "list of images"
    schema: ClassVar[int] = 1
    remedy: ClassVar[str] = "send the images again"
    most_bytes: ClassVar[int] = 256 << 20

    name: _Text
    class_names: tuple[_Text, ...]
    labels: tuple[Annotated[int, msgspec.Meta(ge=-1)], ...]
    files: tuple[_FileName, ...]
    descriptions: tuple[_Text, ...]
    indexed: bool = False
    sets: ListedSets | None = None
    pixels: bool = False


class ListedImages(FileDataset):
    """The images of a listing, which lie in the folder ``folder``."""

    def __init__(self, listing: Listing, folder: Path) -> None:
        if not len(listing.labels) == len(listing.files) == len(listing.descriptions) or not listing.labels:
            raise DataError("a list of images has no image, or not one label for each", remedy=Listing.remedy)
        super().__init__(
            listing.name,
            [folder / name for name in listing.files],
            np.array(listing.labels, dtype=np.int64),
            listing.class_names,
            sets=None if listing.sets is None else LabelSets(listing.sets.names, listing.sets.of_class),
        )
        self.indexed = listing.indexed
        self._descriptions, self._pixels = listing.descriptions, listing.pixels

    def describe(self, index: int) -> str:
        """Return what the image was called where it came from."""
        return self._descriptions[index]

    def image_sha256(self, index: int) -> str:
        """Return the SHA-256 that the image had where it came from."""
        return Dataset.image_sha256(self, index) if self._pixels else super().image_sha256(index)


def load_listing(path: Path) -> ListedImages:
    """Return the images that the JSON file ``path`` lists, which lie beside it.

    Raises:
        DataError: if it is damaged.
    """
    try:
        listing = Listing.load(path)
    except BundleError as error:
        raise DataError(error.message, remedy=error.remedy) from error
    return ListedImages(listing, path.parent)


def contents(dataset: Dataset, unreadable: Unreadable, progress: Progress) -> Iterator[tuple[int, Path | bytes]]:
    """Yield the index of each image that can be read, and its file: where it lies, or a PNG of its pixels.

    What cannot be read is noted in ``unreadable``.
    """
    for index in progress.track(range(len(dataset)), total=len(dataset), label="Reading the images"):
        try:
            yield index, _content(dataset, index)
        except ImageError as error:  # noqa: PERF203 - it is left out, as where it is measured
            unreadable.add(dataset.describe(index), error)
            progress.note(f"Leaving out {dataset.describe(index)}: {error.message}")


def is_of_pixels(dataset: Dataset) -> bool:
    """Return whether the images of ``dataset`` lie in no files, or are told apart by their pixels all the same."""
    whole = dataset.dataset if isinstance(dataset, Subset) else dataset
    return not isinstance(whole, FileDataset)


def _content(dataset: Dataset, index: int) -> Path | bytes:
    if isinstance(dataset, Subset):
        return _content(dataset.dataset, int(dataset.indices[index]))
    if isinstance(dataset, FileDataset):
        path = dataset.paths[index]
        if not path.is_file() or not os.access(path, os.R_OK):
            raise ImageError(f"cannot read {path}", remedy="make it readable, or take it out of the data set")
        return path
    stream = io.BytesIO()
    dataset.image(index).save(stream, "PNG")
    return stream.getvalue()
