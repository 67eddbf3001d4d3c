"""Turns what a caller gives as images into what the steps read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from edgevit.api.arguments import listed
from edgevit.data.batches import Strict, Unreadable
from edgevit.data.images import ImageSource as Image
from edgevit.data.in_memory import ImageList
from edgevit.data.sources import Split
from edgevit.errors import InputError
from edgevit.paths import path_given
from edgevit.progress import SILENT, Progress
from edgevit.runtime.arguments import flag, images_given, whole_number
from edgevit.stages.images import DataSource

Images: TypeAlias = str | os.PathLike[str] | Iterable[Image]
"""A folder, a CSV file, a built-in name, or images: arrays, Pillow images, paths or bytes."""


def images_of(
    data: Images,
    split: Split,
    *,
    labels: Sequence[int | str] | None = None,
    root: Path | None = None,
    samples: int | None = None,
    seed: int = 0,
    strict: bool = False,
    progress: Progress = SILENT,
) -> DataSource:
    """Return where the images ``data`` are read from; ``progress`` is told where those that come one by one take long.

    Raises:
        InputError: if ``data`` is nothing that holds images, or something is said that does not go with it.
        DataError: if there are no images, or not one label for each.
    """
    unreadable = Strict() if flag("strict", strict) else Unreadable()
    if samples is not None:
        samples = whole_number("samples", samples, least=1)
    seed = whole_number("seed", seed, least=0)
    if isinstance(data, (str, os.PathLike)):
        if labels is not None:
            raise InputError("labels go with images that are given one by one", remedy="leave labels out")
        return DataSource(path_given("data", data), split, unreadable, root=root, samples=samples, seed=seed)
    if root is not None:
        raise InputError("root goes with a CSV file", remedy="leave root out")
    images = ImageList(images_given(data, progress), None if labels is None else listed("labels", labels))
    return DataSource(images.name, split, unreadable, samples=samples, seed=seed, dataset=images)
