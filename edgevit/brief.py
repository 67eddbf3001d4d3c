"""How messages show what a user has given, which may be of any type and size."""

from __future__ import annotations

import reprlib

_LONGEST = 80


class _Brief(reprlib.Repr):
    """Shows numbers, text and a few items of lists; of anything else, which may be large, its type alone."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring = 2, _LONGEST

    def repr_bytes(self, value: bytes, level: int) -> str:  # noqa: ARG002
        return repr(value) if len(value) <= _LONGEST else f"{len(value)} bytes"

    def repr_int(self, value: int, level: int) -> str:
        return super().repr_int(value, level) if value.bit_length() <= 4 * _LONGEST else "an enormous int"

    def repr_instance(self, value: object, level: int) -> str:  # noqa: ARG002
        if value is None or isinstance(value, (bool, float)):
            return repr(value)
        return f"an object of type {type(value).__name__}"


def in_brief(value: object) -> str:
    """Return what a message shows of ``value``: a line of bounded length."""
    return _Brief().repr(value)
