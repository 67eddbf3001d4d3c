"""Shares one loaded engine between threads, and refuses it after ``close()`` and in forked processes."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from edgevit.backends.base import Session
from edgevit.errors import InputError

_sessions: weakref.WeakSet[SharedSession] = weakref.WeakSet()


class SharedSession:
    """A session that any number of threads use, and that is freed when it is closed and the last of them has left.

    Closing does not wait: it may be called from a signal handler, in the very thread that is inside.

    Engines keep threads, which a forked process lacks: there a model would answer never (OpenVINO) or slowly
    (onnxruntime), and freeing it would wait for ever. So a forked process gets an error, and frees nothing.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.RLock()
        self._users = 0
        self._closed = False
        self._process = os.getpid()
        _watch_forks()
        _sessions.add(self)
        session.__enter__()

    @contextmanager
    def use(self) -> Iterator[Session]:
        """Lend the session to this thread.

        Raises:
            InputError: if it has been closed, or belongs to the process that this one was forked from.

        """
        if os.getpid() != self._process:
            raise InputError(
                "the model was loaded before this process was forked, and works only where it was loaded",
                remedy="call load() in each process, after the fork, or start processes with the method 'spawn'",
            )
        with self._lock:
            self._users += 1  # before the question, so that close() in between, by a signal, frees nothing
        try:
            if self._closed:
                raise InputError("the model has been closed", remedy="load it again")
            yield self._session
        finally:
            with self._lock:
                self._users -= 1
                self._free_if_done()

    def close(self) -> None:
        """Let nobody use it any more, and free it as soon as nobody does; a second time does nothing."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._free_if_done()

    def _free_if_done(self) -> None:
        if self._closed and not self._users and (session := self.__dict__.pop("_session", None)) is not None:
            session.__exit__(None, None, None)

    def abandon(self) -> None:
        """Keep the engine for ever: what would free it waits for threads that are not in this process."""
        if (session := self.__dict__.get("_session")) is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_abandon_all)


def _abandon_all() -> None:
    for session in list(_sessions):
        session.abandon()
