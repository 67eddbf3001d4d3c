"""What a connection may do before there is a request, and after there is an answer: uvicorn leaves both open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, Final, Protocol

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds that a client has to read what is left of its answer, once the service is asked to end.
_LAST_SECONDS: Final = 5.0
_RETRY_AFTER: Final = "retry-after: 1\r\n"


class ConnectionLimits(Protocol):
    """How many connections there may be, and how long one may take."""

    @property
    def connections(self) -> int:
        """How many there may be at once."""

    @property
    def header_seconds(self) -> float:
        """How long the head of a request may take, from its first byte, or from when the connection was made."""

    @property
    def write_seconds(self) -> float:
        """How long a client may read nothing while its answer waits."""


class _LimitedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with bounds on what it waits for; ``protocol_with`` sets the limits."""

    limits: ClassVar[ConnectionLimits]
    refused: ClassVar[Callable[[int], object]]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Have a time for the first request, or end the connection at once where there are too many."""
        super().connection_made(transport)
        self._ending = self._begun = False
        self._head: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many connections")
        else:
            self._head = self.loop.call_later(self.limits.header_seconds, self._late)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._begun = True
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        super().on_response_complete()
        self._watch()
        if self._ending:
            self._give_up_in(_LAST_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for timer in (self._head, self._writing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Have a time for a client that reads nothing."""
        super().pause_writing()
        self._give_up_in(self.limits.write_seconds)

    def resume_writing(self) -> None:
        """Go on with a client that has read."""
        super().resume_writing()
        if self._writing is not None and not self._ending:
            self._writing.cancel()
            self._writing = None

    def shutdown(self) -> None:
        """End the connection, once its request is answered."""
        self._ending = True
        super().shutdown()
        if self.transport.is_closing():
            self._give_up_in(_LAST_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in JSON as all else."""
        self._refuse(HTTPStatus.BAD_REQUEST, f"this is no HTTP request: {msg}")

    def _watch(self) -> None:
        """Have a time for the head of a request that has begun, and none where nothing has."""
        waiting = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if waiting and self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self.limits.header_seconds, self._late)
        elif not waiting and self._head is not None:
            self._head.cancel()
            self._head = None

    def _late(self) -> None:
        if self.transport.is_closing():
            return
        if self._begun:
            said = f"the head of the request was not there within {self.limits.header_seconds:g} seconds"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, said)
        else:  # nothing was asked, so that nothing is answered
            self.transport.close()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        content = msgspec.json.encode({"error": message})
        again = _RETRY_AFTER if status is HTTPStatus.SERVICE_UNAVAILABLE else ""
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n{again}"
        end = f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        type(self).refused(status.value)
        self.transport.write((head + end).encode() + content)
        self.transport.close()
        self._give_up_in(_LAST_SECONDS)

    def _give_up_in(self, seconds: float) -> None:
        """End the connection then, whatever its client has not read."""
        if self._writing is not None:
            self._writing.cancel()
        abort: Any = self.transport.abort
        self._writing = self.loop.call_later(seconds, abort)


def protocol_with(limits: ConnectionLimits, refused: Callable[[int], object]) -> type[H11Protocol]:
    """Return what speaks HTTP on a connection, as ``uvicorn.Config(http=...)`` takes it.

    ``refused`` is called with the status of each connection that is ended for its limits, or for what is no HTTP.
    """
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits, "refused": staticmethod(refused)})
