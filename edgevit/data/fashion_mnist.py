"""Fashion-MNIST: 60,000 training and 10,000 test images of clothing, 28x28 grey, in ten classes.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv:1708.07747, 2017. Licence: MIT.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit import json
from edgevit.data.dataset import ArrayDataset
from edgevit.data.download import download
from edgevit.data.idx import read_idx
from edgevit.data.images import decode_image
from edgevit.errors import DataError, MissingDataError, StorageError
from edgevit.files import cache_folder
from edgevit.progress import SILENT, Progress

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

DISTRIBUTION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's and Ubuntu's package ``dataset-fashion-mnist`` puts the files."""

_SAMPLE = files("edgevit.data") / "fashion_mnist_sample"
_EDGE = 28  # pixels

ADDRESS = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"


@dataclass(frozen=True, slots=True)
class _Download:
    """One of the four files: ``sha256`` as published, ``values_sha256`` of the values in it, header left out.

    Distributions compress the files again, so only the values are the same everywhere.
    """

    name: str
    bytes: int
    sha256: str
    values_sha256: str


_FILES = {
    "train": (
        _Download(
            name="train-images-idx3-ubyte.gz",
            bytes=26_421_880,
            sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            values_sha256="2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        ),
        _Download(
            name="train-labels-idx1-ubyte.gz",
            bytes=29_515,
            sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            values_sha256="657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        ),
    ),
    "test": (
        _Download(
            name="t10k-images-idx3-ubyte.gz",
            bytes=4_422_102,
            sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            values_sha256="c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        ),
        _Download(
            name="t10k-labels-idx1-ubyte.gz",
            bytes=5_148,
            sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            values_sha256="3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        ),
    ),
}


class _SampleSheet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sheet of the sample: which images of the full set it shows, row by row, and their labels."""

    indices: list[int]
    labels: list[int]
    values_sha256: str


def fashion_mnist_folder() -> Path:
    """Return where the user's copy of Fashion-MNIST lies: in $EDGEVIT_CACHE, else in ~/.cache/edgevit."""
    return cache_folder() / "fashion-mnist"


def available() -> bool:
    """Whether the full set is on this machine, so that loading it downloads nothing."""
    return all(_local(file) for files in _FILES.values() for file in files)


def load_fashion_mnist(split: Literal["train", "test"], *, progress: Progress = SILENT) -> ArrayDataset:
    """Return the full training or test set, from the cache, else the distribution's package, else its address.

    Raises:
        MissingDataError: if the set is nowhere on this machine and cannot be downloaded.
        DataError: if a file is damaged, or is not the published one.

    """
    pixels, labels = (_values(_local(file) or _fetch(file, progress), file) for file in _FILES[split])
    return ArrayDataset("fashion-mnist", pixels[..., None], labels.astype(np.int64), CLASS_NAMES)


def load_fashion_mnist_sample(split: Literal["train", "test"]) -> ArrayDataset:
    """Return the sample that lies in the package: 500 training or 2,000 test images, each class as often.

    Raises:
        DataError: if the files in the package are damaged.

    """
    sample = _sample_sheet(split)
    sheet = np.asarray(decode_image((_SAMPLE / f"{split}.png").read_bytes()))
    rows, columns = sheet.shape[0] // _EDGE, sheet.shape[1] // _EDGE
    tiles = sheet.reshape(rows, _EDGE, columns, _EDGE).swapaxes(1, 2).reshape(-1, _EDGE, _EDGE, 1)
    if hashlib.sha256(tiles.tobytes()).hexdigest() != sample.values_sha256:
        raise DataError("the sample of Fashion-MNIST is damaged", remedy="install edgevit again")
    return ArrayDataset("fashion-mnist-sample", tiles, np.asarray(sample.labels, dtype=np.int64), CLASS_NAMES)


def sample_indices(split: Literal["train", "test"]) -> NDArray[np.int64]:
    """Return which images of the full set the sample has, in its order."""
    return np.asarray(_sample_sheet(split).indices, dtype=np.int64)


def _sample_sheet(split: Literal["train", "test"]) -> _SampleSheet:
    return json.decode((_SAMPLE / "sample.json").read_bytes(), dict[str, _SampleSheet])[split]


def _local(file: _Download) -> Path | None:
    places = (fashion_mnist_folder() / file.name, DISTRIBUTION_FOLDER / file.name)
    return next((path for path in places if path.is_file()), None)


def _values(path: Path, file: _Download) -> NDArray[np.uint8]:
    values = read_idx(path)
    if hashlib.sha256(values.data).hexdigest() != file.values_sha256:
        raise DataError(f"{path} is not Fashion-MNIST as published", remedy=f"remove {path} and run the command again")
    return values


def _fetch(file: _Download, progress: Progress) -> Path:
    target = fashion_mnist_folder() / file.name
    try:
        download(ADDRESS + file.name, target, sha256=file.sha256, size=file.bytes, progress=progress)
    except StorageError as error:
        raise StorageError(error.message, remedy="name a folder that can be written to in $EDGEVIT_CACHE") from error
    except MissingDataError as error:
        raise MissingDataError(
            f"Fashion-MNIST is not on this machine: {error.message}",
            remedy="apt install dataset-fashion-mnist, or use fashion-mnist-sample, which needs no download, "
            f"or put {file.name} and its three companions into {fashion_mnist_folder()}",
        ) from error
    return target
