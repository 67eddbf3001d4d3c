"""Signals that ask the program to end: it cleans up first, as it does on Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKING = (signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked the program to end; not an Exception, so that nothing on the way takes it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number  # as a shell reports it


@contextmanager
def signals_stop() -> Iterator[None]:
    """Raise ``Stopped`` where the program is when it is asked to end, unless whoever started it (nohup) said not to."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.getsignal(number) for number in _ASKING}
    for number in _ASKING:
        if before[number] == signal.SIG_DFL:
            signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in _ASKING:
            signal.signal(number, before[number])


def _stop(number: int, _: FrameType | None) -> None:
    raise Stopped(number)


def signal_behind(error: BaseException | None) -> Stopped | KeyboardInterrupt | None:
    """Return the signal that led to ``error``: a native module that is being imported turns it into an ImportError."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error may be raised from itself
        seen.add(id(error))
        if isinstance(error, (Stopped, KeyboardInterrupt)):
            return error
        error = error.__cause__ or error.__context__
    return None
