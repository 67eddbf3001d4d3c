"""What an engine may take to open or run a file from elsewhere: a small one can name large matrices to multiply.

How much memory that is tells ``edgevit.memory``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from edgevit.errors import InputError
from edgevit.memory import limited_for, number_in

#: The environment variable by which a user allows more time, or less, in seconds; 0 takes the limit away.
TIME_ALLOWED = "EDGEVIT_LOAD_SECONDS"

_NAME = "edgevit-limited"  # of the threads
_LEAST = 30
_MIB = 1 << 20  # a second is allowed for each

_T = TypeVar("_T")


def seconds_for(size: int) -> int | None:
    """Return how many seconds opening a file of ``size`` bytes may take; None for any number.

    Raises:
        InputError: if the environment variable ``EDGEVIT_LOAD_SECONDS`` is no number.

    """
    given = os.environ.get(TIME_ALLOWED)
    if given is None:
        return _LEAST + size // _MIB
    allowed = number_in(given)
    if allowed is None:
        raise InputError(
            f"{TIME_ALLOWED} is {given!r}", remedy=f"set {TIME_ALLOWED} to a number of seconds, or to 0 for no limit"
        )
    return allowed or None


def within_limits(size: int, what: str, work: Callable[[], _T], *, times: int = 1) -> _T:
    """Return what ``work`` returns, which has an engine open or run a file of ``size`` bytes, called ``what``.

    It may take the memory and the time that opening such a file explains, the time ``times`` over. No engine can be
    stopped while it opens a file: ``work`` is done in a thread of its own, which goes on in the background, within its
    memory, when it is not waited for any longer. Python waits for that thread when the process ends.

    Raises:
        InputError: if it takes more.

    """
    seconds = seconds_for(size)
    if seconds is None:
        return _within_memory(size, what, work)
    done: Future[_T] = Future()
    # No daemon: an engine that comes back to an interpreter that has ended would end the process by SIGABRT.
    thread = threading.Thread(target=_run, args=(size, what, work, done), name=f"{_NAME}: {what}")
    try:
        thread.start()
    except RuntimeError as error:
        raise InputError(
            f"no thread can be started for {what}", remedy="raise the limit on processes (ulimit -u), or end some"
        ) from error
    if not wait([done], times * seconds).done:
        raise InputError(
            f"{what} takes more than {times * seconds} s, more than a model of this size should need",
            remedy=f"set {TIME_ALLOWED} to more seconds (0: any number) if you trust the file",
        )
    return done.result()


def still_working() -> bool:
    """Return whether there is work that is not waited for any longer."""
    return any(thread.name.startswith(_NAME) for thread in threading.enumerate())


def _within_memory(size: int, what: str, work: Callable[[], _T]) -> _T:
    with limited_for(size, what):
        return work()


def _run(size: int, what: str, work: Callable[[], _T], done: Future[_T]) -> None:
    try:
        done.set_result(_within_memory(size, what, work))
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
        done.set_exception(error)
