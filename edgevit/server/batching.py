"""Requests wait in a queue that is never longer than it may be, and go through the model in batches."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Busy(Exception):
    """There is no room for another request; ``reason`` says why, for the client."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Waiting:
    """Images (B, C, H, W) of one request, and where their rows go."""

    __slots__ = ("images", "rows")

    def __init__(self, images: NDArray[np.float32]) -> None:
        self.images = images
        self.rows: Future[NDArray[np.float32]] = Future()


class Batcher:
    """Lets ``workers`` threads take images from a queue of at most ``most`` requests, up to ``batch`` images at once.

    What waits already goes together; nothing waits for company. A model answers to each image as it would alone, so
    that what is batched with what changes no answer beyond rounding.
    """

    def __init__(
        self, infer: Infer, *, batch: int, most: int, workers: int, seen: Callable[[int, float], object]
    ) -> None:
        self._infer, self._batch, self._seen = infer, batch, seen
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(most)
        self._closing = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, name=f"edgevit-serve-{each}") for each in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._queue.qsize()

    def submit(self, images: NDArray[np.float32]) -> Future[NDArray[np.float32]]:
        """Have ``images`` (B, C, H, W) go through the model; the result are their rows.

        Raises:
            Busy: if the queue is full, or the service is shutting down.

        """
        item = _Waiting(images)
        with self._lock:  # so that nothing comes behind the end that close() puts there
            if self._closing:
                raise Busy("the service is shutting down")
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                raise Busy("the queue is full") from None
        return item.rows

    def close(self) -> None:
        """Take nothing more, finish what waits, and end the threads."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        carried: _Waiting | None = None
        while (first := carried or self._queue.get()) is not None:
            carried, together, ended = None, [first], False
            count = len(first.images)
            while count < self._batch and not ended:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ended = True
                elif count + len(following.images) > self._batch:
                    carried = following
                    break
                else:
                    together.append(following)
                    count += len(following.images)
            self._answer(together)
            if ended:
                return

    def _answer(self, together: Sequence[_Waiting]) -> None:
        wanted = [each for each in together if each.rows.set_running_or_notify_cancel()]
        if not wanted:  # their clients have gone
            return
        start = time.perf_counter()
        try:
            images = wanted[0].images if len(wanted) == 1 else np.concatenate([each.images for each in wanted])
            rows = self._infer(images)
        except Exception as error:  # noqa: BLE001 - raised again where they are waited for; the thread has to go on
            for each in wanted:
                each.rows.set_exception(error)
            return
        self._seen(len(images), time.perf_counter() - start)
        place = 0
        for each in wanted:
            each.rows.set_result(rows[place : place + len(each.images)])
            place += len(each.images)
