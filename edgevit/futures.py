"""Work that threads do ahead of whoever takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def in_order(started: Iterable[tuple[K, Future[T]]], ahead: int) -> Iterator[tuple[K, Future[T]]]:
    """Yield what ``started`` yields, staying ``ahead`` items behind it so that they can get done."""
    waiting: deque[tuple[K, Future[T]]] = deque()
    for item in started:
        waiting.append(item)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
