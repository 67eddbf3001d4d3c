"""The IDX format of MNIST and its relatives: a header with type and sizes, then the values, gzipped.

Source: "The IDX file format" in Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgevit.errors import DataError

_UNSIGNED_BYTE = 0x08
_MAX_VALUES = 1 << 28  # 256 MiB; the largest file of Fashion-MNIST has 47 MB


def parse_idx(stream: BinaryIO, *, name: str) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in ``stream``, whose shape its header gives.

    Reads no more than the header announces, and at most 256 MiB.

    Raises:
        DataError: if ``stream`` is not IDX, is cut short, goes on too long, or announces more than 256 MiB.

    """

    def damaged(what: str) -> DataError:
        return DataError(f"{name} is not a sound IDX file: {what}", remedy=f"remove {name} and fetch it again")

    header = stream.read(4)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise damaged("it does not begin as one")
    kind, dimensions = header[2], header[3]
    if kind != _UNSIGNED_BYTE or not 1 <= dimensions <= 4:
        raise damaged(f"values of type 0x{kind:02x} in {dimensions} dimensions, not unsigned bytes in 1 to 4")
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise damaged("it ends in its header")
    shape = struct.unpack(f">{dimensions}I", sizes)
    count = math.prod(shape)
    if count > _MAX_VALUES:
        raise damaged(f"its header announces {count} values, more than {_MAX_VALUES}")
    content = stream.read(count)
    if len(content) < count:
        raise damaged(f"it has {len(content)} of {count} values")
    if stream.read(1):
        raise damaged(f"it has more than the {count} values that its header announces")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array in the gzipped IDX file at ``path``.

    Raises:
        DataError: if the file is damaged; see ``parse_idx``.

    """
    try:
        with gzip.open(path, "rb") as stream:
            return parse_idx(stream, name=str(path))  # type: ignore[arg-type]  # GzipFile is a BinaryIO in all but name
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}", remedy=f"remove {path} and fetch it again") from error
