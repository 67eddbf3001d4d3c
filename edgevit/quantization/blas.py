"""NumPy's products of matrices in one thread, where other threads have the cores."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Protocol

import numpy as np
from threadpoolctl import ThreadpoolController


class _ThreadLimits(Protocol):
    def restore_original_limits(self) -> None: ...


@cache
def _numpys_blas() -> ThreadpoolController:
    """Return what sets the threads of NumPy's BLAS: to find it takes long where many libraries are loaded."""
    np.ones((2, 2)) @ np.ones((2, 2))  # which loads it, if anything must
    return ThreadpoolController()


def _one_thread() -> _ThreadLimits:
    limits: _ThreadLimits = _numpys_blas().limit(limits=1, user_api="blas")
    return limits


class _BlasLimit:
    """The limit of the whole process: the first that asks for it sets it, and the last that is done takes it back.

    Both in one thread: of several that live, threadpoolctl lets only the first change the limit of OpenBLAS.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._thread: ThreadPoolExecutor | None = None
        self._limits: _ThreadLimits | None = None

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Limit BLAS to one thread meanwhile."""
        with self._lock:
            self._users += 1
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1)
                self._limits = self._thread.submit(_one_thread).result()
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._thread is not None and self._limits is not None:
                    self._thread.submit(self._limits.restore_original_limits).result()
                    self._thread.shutdown()
                    self._thread = self._limits = None


#: Threads of BLAS beside others spin while they wait for one another, and take the cores from those.
one_blas_thread = _BlasLimit().one_thread
