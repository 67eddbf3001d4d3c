"""The command that a page of results is written by, as anybody can type it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """Return the command that started this process, without the folders of this machine.

    A whole path becomes a relative one if it is in this checkout or beside it; of any other only the name is left.
    """
    return shlex.join(["python", *map(_portable, sys.argv)])


def _portable(argument: str) -> str:
    option, equals, value = argument.rpartition("=") if argument.startswith("--") else ("", "", argument)
    if not Path(value).is_absolute():
        return argument
    near = os.path.relpath(value)
    return option + equals + (near if not near.startswith("../..") else Path(value).name)
