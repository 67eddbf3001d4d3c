"""What the command line says and where: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO, TypeVar

import msgspec
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from edgevit.cli.signals import raise_again
from edgevit.cli.terminal import EscapingHook, escaped
from edgevit.json import decode
from edgevit.progress import Progress

T = TypeVar("T")

# Tables that go to a file or a pipe keep their columns whole instead of being cut to 80 characters.
PIPE_WIDTH = 200
PLAIN_INTERVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a command gives back.

    ``data`` is what ``--json`` prints: anything that msgspec can encode. ``text`` is what a person reads.
    ``exit_code`` is 1 where the work is done but a gate failed.
    """

    data: object
    text: RenderableType
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command stopped: ``type`` names the error, ``remedy`` says what to type or change next."""

    type: str
    message: str
    remedy: str
    exit_code: int


class Printer(Protocol):
    """How results and failures are shown."""

    def result(self, result: Result) -> None:
        """Show what a command gave back."""
        ...

    def failure(self, failure: Failure) -> None:
        """Show why a command stopped."""
        ...


class TextPrinter:
    """For people: results on stdout, failures as two lines on stderr."""

    def result(self, result: Result) -> None:
        """Print the text of ``result``."""
        _print_parts(console_for(sys.stdout), result.text)

    def failure(self, failure: Failure) -> None:
        """Print what went wrong and what to try."""
        console = console_for(sys.stderr)
        console.print(f"error: {failure.message}", style="red", markup=False, highlight=False, soft_wrap=True)
        if failure.remedy:
            console.print(f"  try: {failure.remedy}", markup=False, highlight=False, soft_wrap=True)


def _print_parts(console: Console, text: RenderableType) -> None:
    """Print text as it is, line for line: a terminal wraps it, and a command in it can still be copied."""
    if isinstance(text, Group):
        for part in text.renderables:
            _print_parts(console, part)
        return
    console.print(text, markup=False, highlight=False, soft_wrap=isinstance(text, (str, Text)))


class JsonPrinter:
    """For scripts: exactly one JSON object on stdout, whatever happens; failures also as text on stderr."""

    def result(self, result: Result) -> None:
        """Print the data of ``result``."""
        _print_json(result.data)

    def failure(self, failure: Failure) -> None:
        """Print what went wrong as JSON, and as text on stderr."""
        TextPrinter().failure(failure)
        _print_json({"error": {"type": failure.type, "message": failure.message, "remedy": failure.remedy}})


def _print_json(data: object) -> None:
    sys.stdout.write(f"{_as_json(data, letters=_takes_all_letters(sys.stdout))}\n")


def _takes_all_letters(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().replace("-", "").startswith("utf")


def _as_json(data: object, *, letters: bool) -> str:
    """Return ``data`` as JSON, in ASCII alone unless all ``letters`` can be written.

    A file name that is not UTF-8 holds what Python calls surrogates: escaped, ``json`` reads them back as they were.
    """
    try:
        encoded = msgspec.json.encode(data, enc_hook=str)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(data, enc_hook=str), indent=2)
    if not letters:
        return json.dumps(decode(encoded, Any, most_bytes=len(encoded)), indent=2)
    return msgspec.json.format(encoded, indent=2).decode()


class _SafeConsole(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line; Rich would exit with 1, which means that a gate failed."""
        raise  # the BrokenPipeError that Rich is handling


def console_for(stream: TextIO) -> Console:
    """Return a Rich console on ``stream``, wide where the stream is no terminal and COLUMNS does not say how wide."""
    own = stream.isatty() or os.environ.get("COLUMNS", "").isdigit()
    console = _SafeConsole(file=stream, width=None if own else PIPE_WIDTH)
    console.push_render_hook(EscapingHook())
    return console


class Said:
    """What has been said: data that are read again in a later step say the same again."""

    def __init__(self) -> None:
        self._lines: set[str] = set()

    def before(self, message: str) -> bool:
        """Return whether ``message`` has been said, however far it was indented, and remember it."""
        line = message.strip()
        known = line in self._lines
        self._lines.add(line)
        return known


class BarProgress:
    """Draws one bar per piece of work, with the time that is left; notes appear above the bars."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._said = Said()

    def track(self, items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
        """Yield ``items`` and move a bar; it goes away when the items are through."""
        task = self._bars.add_task(label, total=total)
        try:
            yield from self._bars.track(items, task_id=task, total=total)
        finally:
            self._bars.remove_task(task)

    def note(self, message: str) -> None:
        """Print one line above the bars, once."""
        if not self._said.before(message):
            self._bars.console.print(message, markup=False, highlight=False, soft_wrap=True)
        raise_again()


class PlainProgress:
    """Writes a plain line every ten seconds and at the end, for log files and pipes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._said = Said()

    def track(self, items: Iterable[T], *, total: int, label: str) -> Iterator[T]:
        """Yield ``items`` and say now and then how many have passed."""
        start = said = self._clock()
        done = 0
        for item in items:
            yield item
            done += 1
            now = self._clock()
            if now - said >= PLAIN_INTERVAL_S and done < total:
                said = now
                left = (now - start) / done * (total - done)
                self._write(f"{label}: {done}/{total}, about {left:.0f} s left")
        self._write(f"{label}: {done}/{total}, {self._clock() - start:.1f} s")

    def note(self, message: str) -> None:
        """Write one line, once."""
        if not self._said.before(message):
            self._write(message)
        raise_again()

    def _write(self, message: str) -> None:
        self._stream.write(f"{escaped(message)}\n")
        self._stream.flush()


@contextmanager
def progress() -> Iterator[Progress]:
    """Yield the progress that suits stderr: bars on a terminal, plain lines anywhere else."""
    if not sys.stderr.isatty():
        yield PlainProgress(sys.stderr)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console_for(sys.stderr), transient=True) as bars:
        yield BarProgress(bars)
