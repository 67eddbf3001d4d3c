"""Commands on a board: started there once, and followed across connections that are cut."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import msgspec

from edgevit.errors import HostError
from edgevit.hosts.link import Acknowledged, Link
from edgevit.report.formats import printable

_LONGEST_LINE = 300
_KEPT_LINES = 200
_MOST_PARTIAL = 1 << 16


class RemoteCommand(msgspec.Struct, frozen=True):
    """What to run there: its arguments, the file that takes its output, and with which codes it may end."""

    arguments: tuple[str, ...]
    out: str
    allowed: tuple[int, ...] = (0,)


class RunEnd(msgspec.Struct, frozen=True):
    """How commands have ended: the codes of those that ran, and the last lines that they said."""

    codes: tuple[int, ...]
    said: tuple[str, ...]


class _RunState(msgspec.Struct, frozen=True):
    codes: Annotated[list[int], msgspec.Meta(max_length=64)]
    done: bool


def run_commands(
    link: Link, commands: Sequence[RemoteCommand], environment: Mapping[str, str], say: Callable[[str], None]
) -> RunEnd:
    """Run ``commands`` one after the other, until one ends with a code that it may not; ``say`` each line of theirs.

    Raises:
        HostError: if the board cannot be reached any more, or the run is gone.
    """
    token = secrets.token_hex(8)
    link.request(Acknowledged, "start", token=token, commands=list(commands), environment=dict(environment))
    lines = _Lines(say)
    offset = 0
    while True:
        progress, said = link.exchange(_RunState, "follow", offset=offset)
        offset += len(said)
        lines.add(said)
        if progress.done:
            lines.end()
            if len(progress.codes) > len(commands):
                raise HostError(
                    f"{link.name} answers for more commands than it was given", remedy="check what runs there"
                )
            return RunEnd(tuple(progress.codes), tuple(lines.kept))
        if not said:
            time.sleep(0.05)  # a board that answers at once must not keep this processor busy


class _Lines:
    """Takes bytes, and says whole lines, in which no character obeys anyone."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._partial = b""
        self.kept: deque[str] = deque(maxlen=_KEPT_LINES)

    def add(self, said: bytes) -> None:
        *whole, self._partial = (self._partial + said).replace(b"\r", b"\n").split(b"\n")
        self._partial = self._partial[:_MOST_PARTIAL]
        for line in whole:
            self._one(line)

    def end(self) -> None:
        self._one(self._partial)
        self._partial = b""

    def _one(self, line: bytes) -> None:
        text = printable(line.decode(errors="replace").rstrip(), limit=_LONGEST_LINE)
        if text.strip():
            self.kept.append(text)
            self._say(text)


def read_remote(link: Link, name: str, most: int) -> bytes:
    """Return what is in a file of the run's folder there, up to ``most`` bytes.

    Raises:
        HostError: if there is no such file, or it is larger.
    """
    _, content = link.exchange(Acknowledged, "read", name=name, most=most + 1)
    if len(content) > most:
        raise HostError(f"{link.name} answers with more than {most:,} bytes", remedy="check what runs there")
    return content
