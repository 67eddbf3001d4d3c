"""Work that threads do ahead of whoever takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
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


def as_done(started: Iterable[tuple[K, Future[T]]], at_once: int) -> Iterator[tuple[K, Future[T]]]:
    """Yield what ``started`` yields, each when it is done, with at most ``at_once`` of them started and not taken."""
    waiting: dict[Future[T], K] = {}
    for key, future in started:
        waiting[future] = key
        if len(waiting) == at_once:
            yield from _done(waiting)
    while waiting:
        yield from _done(waiting)


def _done(waiting: dict[Future[T], K]) -> Iterator[tuple[K, Future[T]]]:
    """Yield those of ``waiting``, which holds them no longer, that are done, once one is."""
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        yield waiting.pop(future), future
