"""Tensors of a request and of a response, as numbers in JSON or as bytes."""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgevit.errors import DataError

#: FP32 as the protocol has it, on any machine.
_FP32: Final = np.dtype("<f4")


def read_tensor(
    data: list[Any] | None, size: int | None, behind: memoryview | None, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return the only tensor of a request, of that ``shape``.

    It is ``data``, or the ``size`` bytes ``behind`` the JSON, which must be all that there are; None where the client
    has not said which part of the body is JSON.

    Raises:
        DataError: if it is neither, or both, or not of that shape.

    """
    if (data is None) == (size is None):
        raise DataError("a tensor has either data or binary_data_size", remedy="give one of the two")
    if size is None or data is not None:
        if behind is not None and len(behind):
            raise DataError(
                f"{len(behind)} bytes stand behind the JSON, of no tensor", remedy="give their binary_data_size"
            )
        found = _from_numbers(data, shape)
    else:
        found = _from_bytes(size, behind, shape)
    if not np.isfinite(found).all():
        raise DataError("a number is not finite", remedy="give finite numbers")
    return found


def as_bytes(tensor: NDArray[np.float32]) -> bytes:
    """Return a tensor as FP32, row by row."""
    return np.ascontiguousarray(tensor, _FP32).tobytes()


def _from_bytes(size: int, behind: memoryview | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if behind is None:
        raise DataError(
            "binary_data_size is given, and not which part of the body is JSON",
            remedy="send the header Inference-Header-Content-Length, too",
        )
    wanted = prod(shape) * _FP32.itemsize
    if size != wanted or len(behind) != size:
        raise DataError(
            f"binary_data_size is {size}, {len(behind)} bytes stand behind the JSON, and FP32 of {shape} has {wanted}",
            remedy="send as many bytes as the shape has, and nothing behind them",
        )
    return np.frombuffer(behind, _FP32).astype(np.float32).reshape(shape)


def _from_numbers(data: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:  # noqa: ANN401 - as it was in JSON
    try:
        given = np.asarray(data)
    except (ValueError, TypeError, OverflowError) as error:
        raise _no_numbers() from error
    if given.dtype.kind not in "iuf":  # text and truth values would become numbers, too
        raise _no_numbers()
    with np.errstate(over="ignore"):
        found = given.astype(np.float32)
    if found.size != prod(shape) or (found.ndim > 1 and found.shape != shape):
        raise DataError(
            f"there are {found.size} numbers for a shape of {shape}", remedy="give as many as the shape has"
        )
    return found.reshape(shape)


def _no_numbers() -> DataError:
    return DataError("the data are no numbers, or ragged", remedy="give them flat, or nested as the shape")
