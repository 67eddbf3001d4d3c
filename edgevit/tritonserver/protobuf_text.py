"""Writes protobuf's text format, in which Triton reads config.pbtxt.

https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

_PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b"\"'\\")


class Symbol(str):
    """A value of an enumeration, which is written as it is."""

    __slots__ = ()


#: Fields in order, by their names; what is given again is repeated.
Message: TypeAlias = Sequence[tuple[str, "str | int | bool | Symbol | Message"]]


def text_of(message: Message) -> str:
    """Return ``message`` as text, whatever its strings hold: all but plain ASCII is escaped, byte by byte."""
    return "".join(f"{line}\n" for line in _lines(message, ""))


def _lines(message: Message, indent: str) -> Iterator[str]:
    for name, value in message:
        if isinstance(value, (str, int)):
            yield f"{indent}{name}: {_scalar(value)}"
        else:
            yield f"{indent}{name} {{"
            yield from _lines(value, f"{indent}  ")
            yield f"{indent}}}"


def _scalar(value: str | int) -> str:
    if isinstance(value, Symbol):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return '"' + "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03o}" for byte in value.encode()) + '"'
