"""Commands in messages, as they are typed into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePath


def quoted(argument: str | PurePath) -> str:
    """Return ``argument`` as a POSIX shell takes it for one word, whatever is in it.

    A path that begins with "-" gets "./" before it, or it would be an option.
    """
    text = f"./{argument}" if isinstance(argument, PurePath) and str(argument).startswith("-") else str(argument)
    return shlex.quote(text)


def as_options(given: Mapping[str, object]) -> str:
    """Return options as they are typed, each with a space before it: " --root photos --strict".

    A value is a path, a string, a number, or several of them for an option that is given again; True is a flag's. What
    is None, False or empty was not given.
    """
    words = []
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            several = value if isinstance(value, (list, tuple)) else [value]
            words += [f"{option} {quoted(each if isinstance(each, PurePath) else f'{each}')}" for each in several]
    return "".join(f" {word}" for word in words)
