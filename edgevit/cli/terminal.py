"""The terminal: streams that may be closed or limited to ASCII, and text that may come from strangers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

from edgevit.data.names import can_be_shown


def escaped(text: str) -> str:
    """Return ``text`` with control characters written as Python writes them in strings: a terminal obeys none.

    The end of a line and a tab stay, and so does what names of classes may have.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    plain = letter in "\n\t" or can_be_shown(letter)
    return letter if plain else letter.encode("unicode_escape").decode()


class EscapingHook(RenderHook):
    """Makes a Rich console escape the text that it is given; its own styles stay."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wrap what is to be printed."""
        return [_Escaped(each) for each in renderables]


class _Escaped:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else Segment(escaped(segment.text), segment.style)


def open_standard_streams() -> None:
    """Let this program have the three standard streams, as a daemon or cron may have started it without.

    What stands for a closed one leads nowhere. Letters that a stream does not know are escaped instead of an error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:  # the lowest free number is this one: those below are open by now
                os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def stdout_for_results() -> Iterator[TextIO]:
    """Yield the real stdout, and let what else is printed meanwhile, by engines in C too, go to stderr."""
    results = sys.stdout
    number = _number_of(results)
    if number is None:  # a test's, in memory
        with redirect_stdout(sys.stderr):
            yield results
        return
    results.flush()
    kept = os.dup(number)
    try:
        os.dup2(2, number)
        with (
            open(kept, "w", encoding=results.encoding, errors=results.errors, closefd=False) as real,
            redirect_stdout(sys.stderr),
        ):
            yield real
    finally:
        os.dup2(kept, number)
        os.close(kept)


def _number_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
