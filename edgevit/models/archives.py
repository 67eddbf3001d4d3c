"""Reads files of torch and numpy without running their code or filling the memory."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.checkpoints import TORCH_LOAD_ERRORS

_MOST_INFLATION = 50  # honest weights hardly shrink
_REMEDY = "save its state_dict() alone, best with safetensors.torch.save_file"
_BROKEN = (*TORCH_LOAD_ERRORS, zipfile.BadZipFile, zlib.error, AssertionError, MemoryError, RecursionError)

#: What trainings keep beside their weights: read as nothing at all, so that none of these classes runs.
_PASSED_OVER = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("dtype", "ndarray", "core.numeric._frombuffer", "_core.numeric._frombuffer")),
    *(f"numpy.dtypes.{name}DType" for name in ("Float16", "Float32", "Float64", "Int32", "Int64", "UInt8", "Bool")),
    *(f"pathlib.{pure}{kind}Path" for pure in ("", "Pure") for kind in ("", "Posix", "Windows")),
    *(f"pathlib._local.{pure}{kind}Path" for pure in ("", "Pure") for kind in ("", "Posix", "Windows")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"builtins.{name}" for name in ("list", "dict", "tuple", "int", "float", "str", "bool", "bytes", "object")),
    *(f"builtins.{name}" for name in ("slice", "range", "frozenset")),
    "argparse.Namespace",
    "types.SimpleNamespace",
    "uuid.UUID",
    "decimal.Decimal",
    "fractions.Fraction",
)


class _PassedOver:
    """Stands where a file has a number of numpy's, a path or a date: it takes whatever they are made of."""

    def __new__(cls, *_: object) -> _PassedOver:  # noqa: PYI034 - typing.Self is newer
        return object.__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _mapping(*_: object) -> dict[object, object]:
    return {}  # a defaultdict: its items come after it


def _sequence(*_: object) -> list[object]:
    return []  # a deque


def read_pickle(path: Path) -> Mapping[object, object]:
    """Return the dictionary that ``torch.save`` wrote to ``path``.

    Raises:
        CheckpointError: if the file is damaged, could run code, or holds no dictionary.
    """
    harmless = [(_PassedOver, name) for name in _PASSED_OVER]
    containers = [(_mapping, "collections.defaultdict"), (_sequence, "collections.deque")]
    try:
        if zipfile.is_zipfile(path):
            _check_inflation(path, _REMEDY)
            _check_no_program(path)
        with torch.serialization.safe_globals([*harmless, *containers]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise CheckpointError(f"{path} {_unreadable_reason(str(error))}", remedy=_REMEDY) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} does not hold a state_dict, but a {type(content).__name__}",
            remedy="save the model's state_dict() alone",
        )
    return content


def read_npz(path: Path) -> dict[str, Tensor]:
    """Return the arrays of the ``.npz`` file at ``path``.

    Raises:
        CheckpointError: if the file is damaged, would fill the memory, or holds objects.
    """
    remedy = "download it again; only .npz files of plain arrays are read"
    try:
        _check_inflation(path, remedy)
        _check_arrays(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}
    except _BROKEN as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not a readable .npz file: {reason}", remedy=remedy) from error


def _check_arrays(path: Path) -> None:
    """See to it that each member is an array, and has the bytes that its header promises, before any is read."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    read = np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if dtype.hasobject or dtype.kind not in "fiub":
                raise ValueError(f"{entry.filename} holds values of the type {dtype}")
            if math.prod(shape) * dtype.itemsize > entry.file_size:
                raise ValueError(
                    f"{entry.filename} says that it holds {'x'.join(map(str, shape))} values, and does not"
                )


def _unreadable_reason(error: str) -> str:
    """Say in words what torch did not like; its own message tells how to run the code that a file brings."""
    if found := re.search(r"(?:Unsupported global: |unsupported )GLOBAL ([\w.]+)", error):
        return f"holds more than tensors, which could run code: {found[1]}"
    reason = error.splitlines()[0] if error.strip() else "its parts do not fit together"
    return f"is damaged, or holds more than tensors, which could run code: {reason}"


def _check_inflation(path: Path, remedy: str) -> None:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _MOST_INFLATION * path.stat().st_size:
            raise CheckpointError(f"{path} would fill the memory when unpacked", remedy=remedy)


def _check_no_program(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise CheckpointError(
                f"{path} is a TorchScript archive, a program that brings its tensors along",
                remedy="if you trust it: torch.save(torch.jit.load(OLD).state_dict(), NEW), and give NEW",
            )
