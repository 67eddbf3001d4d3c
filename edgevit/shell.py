"""Commands in messages, as they are typed into a shell."""

from __future__ import annotations

import shlex
from pathlib import PurePath


def quoted(argument: str | PurePath) -> str:
    """Return ``argument`` as a POSIX shell takes it for one word, whatever is in it."""
    return shlex.quote(str(argument))
