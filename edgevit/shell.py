"""Commands in messages, as they are typed into a shell."""

from __future__ import annotations

import shlex
from pathlib import PurePath


def quoted(argument: str | PurePath) -> str:
    """Return ``argument`` as a POSIX shell takes it for one word, whatever is in it.

    A path that begins with "-" gets "./" before it, or it would be an option.
    """
    text = f"./{argument}" if isinstance(argument, PurePath) and str(argument).startswith("-") else str(argument)
    return shlex.quote(text)
