"""Checks a path that a caller gives, so that no system call fails on it in a way that nobody expects."""

from __future__ import annotations

import os
from typing import Any

from edgevit.brief import in_brief
from edgevit.errors import InputError

#: What Linux and macOS take, in bytes; of a longer one, each question about it is an error of the system.
_LONGEST_PATH, _LONGEST_NAME = 4095, 255


def path_given(name: str, value: Any) -> str:  # noqa: ANN401
    """Return ``value``, a path or a name, as a string.

    Raises:
        InputError: if it is none, or empty, which would be the current folder; the message calls it ``name``.

    """
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name} is {in_brief(value)}, not a path", remedy=f"give {name} as a string or a Path")
    text = os.fsdecode(value)
    if not text:
        raise InputError(f"{name} is empty", remedy=f"give {name} as a name or a path; '.' is the current folder")
    encoded = _encoded(text)
    if b"\0" in encoded:
        what = "a zero byte" if "\0" in text else "half of a character"
        raise InputError(f"{name} has {what} in it", remedy=f"give {name} as a path that a disk can have")
    if len(encoded) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in encoded.split(os.fsencode(os.sep))):
        raise InputError(f"{name} is {in_brief(text)}, too long for a path", remedy=f"give {name} as a name or a path")
    return text


def _encoded(path: str) -> bytes:
    """Return ``path`` as the system takes it; a zero byte for a lone surrogate, which no path of Python's has."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return b"\0"
