"""Answers to images as they come, from a camera, a video or a folder: prepared ahead, and batched where that pays."""

from __future__ import annotations

import io
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edgevit.data.images import Channels, ImageSource
from edgevit.errors import ImageError, InputError
from edgevit.runtime.arguments import is_one_image
from edgevit.runtime.prediction import Prediction

if TYPE_CHECKING:
    from edgevit.runtime.model import Model

_WAIT = 0.1  # seconds between looks at whether the other side has gone


class Camera(Protocol):
    """What gives frames one by one, as OpenCV's ``VideoCapture`` does: (whether there is one, the frame)."""

    def read(self) -> tuple[bool, Any]:
        """Return the next frame, waiting for it."""
        ...


class Streamed(msgspec.Struct, frozen=True, eq=False):
    """The answer to one image of a stream: its number, the image as it was given, predictions and outputs.

    ``predictions`` is None for a model without classes. ``dropped`` is the number of images that were skipped since the
    previous answer because the model was busy. If the image could not be read, ``error`` says why and there is no
    answer.
    """

    index: int
    image: Any
    predictions: list[Prediction] | None
    outputs: dict[str, NDArray[np.float32]]
    dropped: int = 0
    error: ImageError | None = None


class _Taken(msgspec.Struct, frozen=True, eq=False):
    """An image that was taken from the source: as it came, and prepared, unless it could not be read."""

    index: int
    image: Any
    pixels: NDArray[np.float32] | None = None
    error: ImageError | None = None


class _Ended(NamedTuple):
    error: BaseException


def stream(
    model: Model,
    images: Iterable[ImageSource] | Camera,
    *,
    batch: int,
    prefetch: int,
    latest: bool,
    channels: Channels,
    top: int,
    threshold: float | None,
) -> Iterator[Streamed]:
    """Yield the answers to ``images`` in their order; see ``Model.stream``."""
    ahead = _Ahead(model, images, channels=channels, most=prefetch, latest=latest)
    try:
        last = -1
        for several in ahead.batches(batch):
            yield from _answers(model, several, last, top=top, threshold=threshold)
            last = several[-1].index
    finally:
        ahead.stop()


def answered(
    model: Model, index: int, image: ImageSource, *, channels: Channels, top: int, threshold: float | None
) -> Streamed:
    """Return the answer to one image; one that cannot be read has its error."""
    taken = _prepared(model, _Taken(index, image), channels)
    return next(_answers(model, [taken], index - 1, top=top, threshold=threshold))


def _prepared(model: Model, taken: _Taken, channels: Channels) -> _Taken:
    try:
        return replace(taken, pixels=model.prepare([taken.image], channels=channels)[0])
    except ImageError as error:
        return replace(taken, error=error)


def _answers(
    model: Model, several: list[_Taken], last: int, *, top: int, threshold: float | None
) -> Iterator[Streamed]:
    whole = [each.pixels for each in several if each.pixels is not None]
    rows = iter(model.infer(np.stack(whole)) if whole else ())
    for each in several:
        dropped, last = each.index - last - 1, each.index
        if each.error is not None:
            yield Streamed(each.index, each.image, None, {}, dropped, each.error)
            continue
        predictions, outputs = model.answer(next(rows)[None], top=top, threshold=threshold)
        yield Streamed(each.index, each.image, predictions, outputs, dropped)


class _Ahead:
    """Takes images in a thread of its own, at most so many ahead.

    It prepares them, too, unless only the ``latest`` counts, of which most are passed over.
    """

    def __init__(
        self, model: Model, images: Iterable[ImageSource] | Camera, *, channels: Channels, most: int, latest: bool
    ) -> None:
        self._model, self._images, self._channels, self._latest = model, images, channels, latest
        self._queue: queue.Queue[_Taken | _Ended | None] = queue.Queue(1 if latest else most)
        self._stopped, self._process = threading.Event(), os.getpid()
        self._thread = threading.Thread(target=self._run, name="edgevit-stream", daemon=True)
        self._thread.start()

    def batches(self, most: int) -> Iterator[list[_Taken]]:
        """Yield what is there, at least one and at most so many, without waiting for more."""
        while True:
            if os.getpid() != self._process:  # the thread was left behind
                raise InputError("the process was forked during the stream", remedy="load the model and begin there")
            first = self._queue.get()
            found: list[_Taken] = []
            ended: _Ended | None = None
            while isinstance(first, _Taken):
                found.append(_prepared(self._model, first, self._channels) if self._latest else first)
                if len(found) == most:
                    break
                try:
                    first = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                ended = first
                self._stopped.set()
            if found:
                yield found
            if isinstance(ended, _Ended):
                raise ended.error
            if self._stopped.is_set():
                return

    def stop(self) -> None:
        """Have the thread end, and wait for it, unless it waits for a frame that may never come."""
        if os.getpid() != self._process:
            return
        self._stopped.set()
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join(timeout=2 * _WAIT)

    def _run(self) -> None:
        end: _Ended | None = None
        try:
            for index, image in enumerate(frames_of(self._images)):
                if self._stopped.is_set():
                    return
                taken = _Taken(index, image)
                self._put(taken if self._latest else _prepared(self._model, taken, self._channels))
        except BaseException as error:  # noqa: BLE001 - raised again where the answers are taken
            end = _Ended(error)
        self._put(end, always=True)

    def _put(self, item: _Taken | _Ended | None, *, always: bool = False) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                return self._queue.put(item, timeout=0 if self._latest and not always else _WAIT)
            if self._latest and not always:  # the oldest gives way
                with suppress(queue.Empty):
                    self._queue.get_nowait()
        return None


def is_camera(images: object) -> TypeGuard[Camera]:
    """Return whether ``images`` gives frames as OpenCV's cameras do; a file that is open has a ``read``, too."""
    return callable(getattr(images, "read", None)) and not isinstance(images, io.IOBase)


def frames_of(images: Iterable[ImageSource] | Camera) -> Iterator[ImageSource]:
    """Yield the images of an iterable, or a camera's frames until it has no more.

    Raises:
        InputError: if ``images`` is neither.

    """
    if is_camera(images):
        while True:
            found: object = images.read()
            if not (isinstance(found, (tuple, list)) and len(found) == 2):
                raise InputError(
                    f"read() of the camera returned a {type(found).__name__}",
                    remedy="have it return whether there is a frame, and the frame, as cv2.VideoCapture does",
                )
            there, frame = found
            if not there:
                return
            yield frame
    yield from iterable(images)


def iterable(images: object) -> Iterable[Any]:
    """Return ``images`` as they are.

    Raises:
        InputError: if they cannot be iterated, or are one image.

    """
    if is_one_image(images) or not isinstance(images, Iterable):
        raise InputError(
            f"images are a {type(images).__name__}: neither an iterable nor a camera",
            remedy="give a list or generator of images, or what has a read() as cv2.VideoCapture has",
        )
    return images
