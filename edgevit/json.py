"""JSON from anywhere, into a type: the one place that reads it, and one error for all that can be wrong with it."""

from __future__ import annotations

import re
import stat
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, TypeVar, overload

import msgspec

from edgevit.decoding import LOCK
from edgevit.errors import EdgeViTError

T = TypeVar("T")

#: Bytes; 21,841 labels, or a hundred variants, take less than a sixth of it.
MOST_BYTES: Final = 16 << 20
#: Brackets within brackets; no file that EdgeViT reads has more than ten.
MOST_DEPTH: Final = 64

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class JSONError(ValueError):
    """What is wrong with a text or a file, in words that go on after a colon."""


@overload
def decode(content: bytes | str, kind: type[T], *, most_bytes: int = ...) -> T: ...
@overload
def decode(content: bytes | str, kind: Any, *, most_bytes: int = ...) -> Any: ...  # noqa: ANN401 - a union is no type
def decode(content: bytes | str, kind: Any, *, most_bytes: int = MOST_BYTES) -> Any:
    """Return what ``content`` says.

    Raises:
        JSONError: if it is no JSON, not in UTF-8, longer than ``most_bytes``, nested more than ``MOST_DEPTH`` deep, or
            no ``kind``; the message says where.

    """
    if len(content) > most_bytes:
        raise JSONError(f"it is too large: more than {most_bytes:,} bytes")
    try:
        encoded = content.encode() if isinstance(content, str) else content
        with LOCK:
            found = msgspec.json.decode(encoded, type=kind)
    except (ValueError, RecursionError, EdgeViTError) as error:  # the last: a type checks its values itself
        raise JSONError(str(error)) from error
    if _depth(encoded) > MOST_DEPTH:
        raise JSONError(f"it is nested more than {MOST_DEPTH} deep")
    return found


@overload
def read(path: Path, kind: type[T], *, most_bytes: int = ...) -> T: ...
@overload
def read(path: Path, kind: Any, *, most_bytes: int = ...) -> Any: ...  # noqa: ANN401 - a union is no type
def read(path: Path, kind: Any, *, most_bytes: int = MOST_BYTES) -> Any:
    """Return what the file at ``path`` says; no more than ``most_bytes`` of it are read.

    Raises:
        JSONError: if it cannot be read, or as ``decode`` does.

    """
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise JSONError(f"it cannot be read: {error.strerror}") from error
    if not regular:  # a pipe would be waited for
        raise JSONError("it is not a file")
    try:
        with path.open("rb") as stream:
            content = stream.read(most_bytes + 1)
    except OSError as error:
        raise JSONError(f"it cannot be read: {error.strerror}") from error
    return decode(content, kind, most_bytes=most_bytes)


def _depth(content: bytes) -> int:
    """Return how deep the brackets of a valid JSON text are nested."""
    brackets = _STRING.sub(b"", content).translate(None, _NO_BRACKETS)
    return max(accumulate(1 if byte in b"[{" else -1 for byte in brackets), default=0)
