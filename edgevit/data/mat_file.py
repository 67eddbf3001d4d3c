"""Reads what is needed of MATLAB's files, Level 5: texts and numbers of an array of structs.

After "MAT-File Format" (The MathWorks, 2020). SciPy's reader ends the process on some damaged files.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

_HEADER = 128
_MOST_BYTES = 64 << 20
_COMPRESSED, _MATRIX = 15, 14
_STRUCT, _CHAR = 2, 4
#: How numbers are stored, by their type, as in the module struct; texts among them.
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}


class MatError(ValueError):
    """The content is no file of MATLAB's, or damaged."""


class _Element(NamedTuple):
    type: int
    content: bytes


class _Matrix(NamedTuple):
    kind: int
    cells: int
    name: str
    rest: Iterator[_Element]


def read_structs(content: bytes, name: str, fields: tuple[str, ...]) -> list[Mapping[str, str | float]]:
    """Return ``fields`` of each struct in the array called ``name``: a text, or a number.

    Raises:
        MatError: if they are not there, or anything in the file is not as it should be.

    """
    try:
        order = _byte_order(content)
        for element in _elements(content[_HEADER:], order):
            whole = _unfolded(element, order) if element.type == _COMPRESSED else element
            if whole.type == _MATRIX and (matrix := _matrix(whole.content, order)).name == name:
                return _structs(matrix, fields, order)
    except (struct.error, zlib.error, UnicodeDecodeError, StopIteration) as error:
        raise MatError(f"it is damaged: {error}") from error
    raise MatError(f"it has no array called {name}")


def _byte_order(content: bytes) -> Literal["<", ">"]:
    order: Mapping[bytes, Literal["<", ">"]] = {b"IM": "<", b"MI": ">"}
    mark = content[_HEADER - 2 : _HEADER]
    if mark not in order or not content.startswith(b"MATLAB 5.0"):
        raise MatError("it is no MAT-file of Level 5")
    return order[mark]


def _elements(content: bytes, order: str) -> Iterator[_Element]:
    """Yield the elements one after the other, each with a tag of its type and size in front."""
    place = 0
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        if kind >> 16:  # the small form: both in four bytes, and at most four bytes of data
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            place += 8
            if size > 4:
                raise MatError("a small element is too large")
        else:
            start = place + 8
            place = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(content):
            raise MatError("an element is cut off")
        yield _Element(kind, content[start : start + size])


def _unfolded(element: _Element, order: str) -> _Element:
    unfolding = zlib.decompressobj()
    whole = unfolding.decompress(element.content, _MOST_BYTES)
    if unfolding.unconsumed_tail or not unfolding.eof:
        raise MatError("an element is cut off, or too large")
    return next(_elements(whole, order))


def _matrix(content: bytes, order: str) -> _Matrix:
    elements = _elements(content, order)
    flags, sizes, name = next(elements), next(elements), next(elements)
    (kind,) = struct.unpack_from(f"{order}I", flags.content)
    count = 1
    for size in struct.unpack(f"{order}{len(sizes.content) // 4}i", sizes.content):
        count *= size
    if not 0 <= count <= _MOST_BYTES:
        raise MatError("an array has no possible size")
    return _Matrix(kind & 0xFF, count, name.content.decode("latin-1"), elements)


def _structs(matrix: _Matrix, fields: tuple[str, ...], order: str) -> list[Mapping[str, str | float]]:
    if matrix.kind != _STRUCT:
        raise MatError(f"{matrix.name} is no array of structs")
    (length,) = struct.unpack(f"{order}i", next(matrix.rest).content)
    names = next(matrix.rest).content
    if not 0 < length <= 64 or len(names) % length:
        raise MatError("the names of fields cannot be told apart")
    known = [names[at : at + length].split(b"\0")[0].decode("latin-1") for at in range(0, len(names), length)]
    if missing := set(fields) - set(known):
        raise MatError(f"{matrix.name} has no {', '.join(sorted(missing))}")
    found: list[Mapping[str, str | float]] = []
    for _ in range(matrix.cells):
        values = {name: next(matrix.rest) for name in known}
        found.append({name: _value(values[name], order) for name in fields})
    return found


def _value(element: _Element, order: str) -> str | float:
    if element.type != _MATRIX:
        raise MatError("a field is no array")
    matrix = _matrix(element.content, order)
    data = next(matrix.rest)
    if matrix.kind == _CHAR and data.type in _TEXTS:
        encoding = _TEXTS[data.type]
        if encoding == "utf-16":
            encoding += "-le" if order == "<" else "-be"
        return data.content.decode(encoding)
    if matrix.cells == 1 and data.type in _NUMBERS:
        (number,) = struct.unpack(order + _NUMBERS[data.type], data.content)
        return float(number)
    raise MatError("a field is neither a text nor one number")
