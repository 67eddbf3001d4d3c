"""Arrays in one file (.npz) that may come from anywhere: no pickles, and no more than memory can take."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgevit.files import atomic_path

ArrayT = TypeVar("ArrayT", bound=np.generic)

Arrays = Mapping[str, NDArray[np.generic]]

#: What reading a file, or taking values out of its arrays, can raise where the file is not what it should be.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
    RuntimeError,  # zipfile, of an encrypted member; or NotImplementedError, of a compression that it lacks
    SyntaxError,  # NumPy reads the header of an old array as Python
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)

_LARGEST = 256 << 20  # bytes unpacked; the calibration table of a ViT-L takes about 30 MB


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write ``arrays`` to ``path``, whole or not at all.

    Raises:
        StorageError: if it cannot be written.

    """
    with atomic_path(path) as draft, draft.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def same_layout(array: NDArray[np.generic], as_: NDArray[ArrayT]) -> NDArray[ArrayT]:
    """Return ``array`` after a check that its type and shape are those of ``as_``.

    Raises:
        ValueError: if they are not.

    """
    if (array.dtype, array.shape) != (as_.dtype, as_.shape):
        raise ValueError(f"{array.dtype} {array.shape} is not {as_.dtype} {as_.shape}")
    return array.astype(as_.dtype, copy=False)


def load_arrays(path: Path, most: int = _LARGEST) -> dict[str, NDArray[np.generic]]:
    """Read all arrays of ``path``; any of ``DAMAGE`` where it is no such file, or has more than ``most`` bytes."""
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > most:
        raise ValueError(f"it would take {size} bytes unpacked")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
