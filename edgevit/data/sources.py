"""Where images come from: one function that turns what the user typed into a Dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgevit.data.dataset import Dataset
from edgevit.data.fashion_mnist import load_fashion_mnist
from edgevit.errors import MissingDataError
from edgevit.progress import SILENT, Progress

Split = Literal["train", "test"]


def load_dataset(source: str, *, split: Split, root: Path | None = None, progress: Progress = SILENT) -> Dataset:
    """Return the ``split`` of ``source``: a built-in name."""
    if source == "fashion-mnist":
        return load_fashion_mnist(split, progress=progress)
    raise MissingDataError(f"there is no data set '{source}'", remedy="use fashion-mnist")
