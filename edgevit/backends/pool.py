"""What several threads share one at a time: requests of an engine, contexts on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Things of which each is used by one thread at a time; who finds none free waits."""

    def __init__(self, things: Iterable[T]) -> None:
        self._free = list(things)
        self._size = len(self._free)
        self._given_back = threading.Condition()

    def __len__(self) -> int:
        """Return how many there are, free or not."""
        return self._size

    @contextmanager
    def borrow(self, most: int = 1) -> Iterator[list[T]]:
        """Lend out those that are free, up to ``most``, and at least one, which is waited for."""
        with self._given_back:
            self._given_back.wait_for(lambda: self._free)
            borrowed, self._free = self._free[:most], self._free[most:]
        try:
            yield borrowed
        finally:
            with self._given_back:
                self._free += borrowed
                self._given_back.notify_all()
