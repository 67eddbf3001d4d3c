"""Requests to a board that outlive the connection: one that is cut is made again, and the request repeated."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from edgevit.errors import HostError
from edgevit.hosts.address import Address
from edgevit.hosts.reasons import ConnectionLostError
from edgevit.hosts.ssh import Connection, program_text
from edgevit.json import JSONError, decode
from edgevit.report.formats import printable

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_MOST_JSON = 1 << 20
_MOST_BYTES = 32 << 20
#: A request that the board does not survive is not repeated for ever.
_MOST_REPEATS = 8
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)


class Patience(msgspec.Struct, frozen=True):
    """How long an answer may take, and for how long a connection that was cut is tried again; seconds."""

    answer_s: float = 120.0
    again_s: float = 180.0


class BoardFacts(msgspec.Struct, frozen=True):
    """What a board says of itself: its Python, the C library, and the free bytes where the run's folder lies."""

    folder: Annotated[str, msgspec.Meta(max_length=4096)]
    executable: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    python: Annotated[str, msgspec.Meta(max_length=64)]
    bits: int
    libc: Annotated[str, msgspec.Meta(max_length=64)]
    free: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class _BoardAnswer(msgspec.Struct, frozen=True):
    payload: Annotated[int, msgspec.Meta(ge=0, le=_MOST_BYTES)]
    error: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    message: Annotated[str, msgspec.Meta(max_length=8192)] = ""


class Acknowledged(msgspec.Struct, frozen=True):
    """An answer that says no more than that it is done."""


class ReconnectedError(HostError):
    """The connection was cut, and is there again; the request may have been done in part."""


class NoSpaceError(HostError):
    """The board's disk is full."""


class DamagedError(HostError):
    """A file that was sent is not what it should be."""


class RunEndedError(HostError):
    """What ran on the board is gone, and has not come to its end."""


class Link:
    """The way to the folder of one run on a board.

    What the board answers may be anything: it is bounded, and checked against a type.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        python: str | None,
        folder: str,
        *,
        cancelled: Callable[[], bool],
        note: Callable[[str], None],
        patience: Patience,
    ) -> None:
        self.name = name
        self._address, self._python, self._folder = address, python, folder
        self._cancelled, self._note, self._patience = cancelled, note, patience
        self._closing = False
        self._session = secrets.token_hex(8)
        self._connection: Connection | None = None
        self.machine = ""
        try:
            self.facts = self._connect()
        except BaseException:
            self._disconnect()
            raise

    def _connect(self) -> BoardFacts:
        self._connection = Connection(
            self.name,
            self._address,
            self._python,
            cancelled=lambda: self._cancelled() and not self._closing,
            patience_s=self._patience.answer_s,
        )
        self.machine = self._connection.machine
        request = {"folder": self._folder, "session": self._session, "python": self._python}
        request["supervisor"] = program_text("supervisor")
        return self._once(BoardFacts, "hello", b"", request)[0]

    def request(self, kind: type[T], operation: str, payload: bytes = b"", **fields: Any) -> T:  # noqa: ANN401
        """Return what the board answers to a request.

        Raises:
            HostError: if it refuses, answers what cannot be, or cannot be reached any more.
        """
        return self.exchange(kind, operation, payload, **fields)[0]

    def exchange(self, kind: type[T], operation: str, payload: bytes = b"", **fields: Any) -> tuple[T, bytes]:  # noqa: ANN401
        """Return what the board answers to a request, and the bytes that it gives with it.

        Raises:
            HostError: as ``request``.
        """
        for attempt in range(_MOST_REPEATS):
            try:
                return self._once(kind, operation, payload, fields)
            except ConnectionLostError as error:  # noqa: PERF203 - it is tried again
                if self._closing or self._cancelled() or attempt == _MOST_REPEATS - 1:
                    raise
                self._again(error)
        raise AssertionError  # the last attempt has returned or raised

    def once(self, kind: type[T], operation: str, payload: bytes, **fields: Any) -> T:  # noqa: ANN401
        """Return what the board answers to a request that is not simply to be repeated.

        Raises:
            ReconnectedError: if the connection was cut meanwhile; it is there again.
            HostError: as ``request``.
        """
        try:
            return self._once(kind, operation, payload, fields)[0]
        except ConnectionLostError as error:
            if self._closing or self._cancelled():
                raise
            self._again(error)
            raise ReconnectedError(error.message, remedy=error.remedy) from error

    def _again(self, error: ConnectionLostError) -> None:
        """Make the connection anew.

        Raises:
            HostError: if that does not succeed in time; it says what it was at first.
        """
        self._note(f"{error.message}: connecting again")
        deadline = time.monotonic() + self._patience.again_s
        for attempt in range(10_000):
            self._disconnect()
            self._pause(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)], deadline)
            try:
                self._connect()
            except ConnectionLostError as again:
                if self._cancelled() or time.monotonic() > deadline:
                    raise HostError(
                        f"the connection to {self.name} is lost: {again.message}", remedy=again.remedy
                    ) from error
            else:
                self._note("the connection is there again")
                return

    def _pause(self, seconds: float, deadline: float) -> None:
        until = min(time.monotonic() + seconds, deadline)
        while time.monotonic() < until and not self._cancelled():
            time.sleep(0.05)

    def _once(self, kind: type[T], operation: str, payload: bytes, fields: dict[str, Any]) -> tuple[T, bytes]:
        connection = self._connection
        if connection is None:
            raise ConnectionLostError(f"there is no connection to {self.name}", remedy="run the command again")
        request = {"op": operation, "payload": len(payload), **fields}
        try:
            connection.write(msgspec.json.encode(request) + b"\n" + payload)
            line = connection.line()
            answer = decode(line, _BoardAnswer, most_bytes=_MOST_JSON)
            content = connection.exactly(answer.payload)
            if answer.error is None:
                return decode(line, kind, most_bytes=_MOST_JSON), content
        except JSONError as error:
            self._disconnect()
            raise HostError(
                f"{self.name} answers what cannot be: {printable(str(error))}", remedy="check what runs there"
            ) from error
        except BaseException:
            self._disconnect()  # the next answer would be the one to this request
            raise
        raise self._refused(answer.error, printable(answer.message))

    def _refused(self, kind: str, message: str) -> HostError:
        if kind == "space":
            return NoSpaceError(f"the disk of {self.name} is full", remedy="free some space there, and run it again")
        if kind == "busy":
            return HostError(
                f"another run of this bundle is going on on {self.name}",
                remedy="wait until it is through; after one that was killed, two minutes",
            )
        if kind == "damaged":
            return DamagedError(f"{self.name}: {message}", remedy="run it again")
        if kind == "ended":
            return RunEndedError(f"{self.name}: {message}", remedy="was it switched off? Run the command again")
        return HostError(f"{self.name}: {message}", remedy="check that its home can be written to, and run it again")

    def stop(self) -> None:
        """End the run there, if it can be reached."""
        self._closing = True
        with suppress(HostError):
            if self._connection is None:
                self._connect()
            self.request(Acknowledged, "stop")

    def clean(self) -> str | None:
        """End the run there, and remove its folder; return why that was not possible, None if it was."""

        class _Left(msgspec.Struct, frozen=True):
            left: bool

        self._closing = True
        try:
            if self._connection is None:
                self._connect()
            left = self.request(_Left, "clean").left
            self._disconnect()
        except HostError as error:
            return error.message
        return "some of its files cannot be removed" if left else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        if self._connection is not None:
            with suppress(HostError):
                self.request(Acknowledged, "leave")
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
