"""How messages show what a user has given, and how results print, which may be of any type and size."""

from __future__ import annotations

import reprlib
from collections.abc import Sized

_LONGEST = 80
#: Of a thing within a result that prints.
_LONGEST_PART = 120


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


class _Parts(_Brief):
    """Shows the first few of what a result has, each cut where it is long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxtuple = self.maxlist = self.maxdict = 3

    def repr_instance(self, value: object, level: int) -> str:  # noqa: ARG002
        shape = getattr(value, "shape", None)
        shown = f"<array {shape}>" if isinstance(shape, tuple) else repr(value)
        return shown if len(shown) <= _LONGEST_PART else f"{shown[: _LONGEST_PART - 1]}…"


def printed(result: object) -> str:
    """Return the ``repr`` of a struct or a dataclass, a few lines at the most: what is empty is left out."""
    names = getattr(result, "__struct_fields__", None) or tuple(getattr(result, "__dataclass_fields__", ()))
    found = {name: getattr(result, name) for name in names}
    shown = (f"{name}={_Parts().repr(value)}" for name, value in found.items() if not _is_empty(value))
    return f"{type(result).__name__}({', '.join(shown)})"


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, Sized) and not hasattr(value, "shape") and not len(value))
