"""Signals that ask the program to end: it cleans up first, as it does on Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKING = {signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


class Stopped(BaseException):
    """A signal asked the program to end; not an Exception, so that nothing on the way takes it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number  # as a shell reports it


_raised: list[Stopped | KeyboardInterrupt] = []  # by the command that runs


@contextmanager
def signals_stop() -> Iterator[None]:
    """Raise ``Stopped`` where the program is when it is asked to end, unless whoever started it (nohup) said not to.

    On Ctrl-C it is KeyboardInterrupt, as ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.getsignal(number) for number in _ASKING}
    for number, usual in _ASKING.items():
        if before[number] == usual:
            signal.signal(number, _stop)
    try:
        yield
    finally:
        _raised.clear()
        for number in _ASKING:
            signal.signal(number, before[number])


def _stop(number: int, _: FrameType | None) -> None:
    _raised.append(KeyboardInterrupt() if number == signal.SIGINT else Stopped(number))
    raise _raised[-1]


def raise_again() -> None:
    """Raise what a signal raised, if the command goes on all the same: torch can take it for an error of its tracing.

    What cleans up meanwhile, because of that or of another exception, goes on.
    """
    if _raised and sys.exc_info()[1] is None and threading.current_thread() is threading.main_thread():
        raise _raised[-1]


def signal_behind(error: BaseException | None) -> Stopped | KeyboardInterrupt | None:
    """Return the signal that led to ``error``: a native module that is being imported turns it into an ImportError."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error may be raised from itself
        seen.add(id(error))
        if isinstance(error, (Stopped, KeyboardInterrupt)):
            return error
        error = error.__cause__ or error.__context__
    return None
