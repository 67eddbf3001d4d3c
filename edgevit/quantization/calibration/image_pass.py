"""One pass over calibration images: the engine runs the next one while threads look at what the last one gave."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgevit.errors import DataError, GraphError
from edgevit.quantization.blas import one_blas_thread
from edgevit.quantization.calibration.observed_model import ObservedModel
from edgevit.system import usable_cores

_MOST_THREADS = 4  # each may hold products as large as a layer's moments: 38 MB for the 3,072 inputs of a ViT-B's fc2


class LayerObserver(Protocol):
    """Takes in a layer's inputs, image by image, in memory that does not grow."""

    def update(self, values: NDArray[np.float32]) -> None:
        """Take in the input (..., K) for one image."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """How many images passed, and a SHA-256 of all of them in order, each hashed with the one of those before."""

    images: int
    sha256: str

    def then(self, image: NDArray[np.float32]) -> Seen:
        """Return what was seen with one image more."""
        digest = hashlib.sha256(self.sha256.encode())
        digest.update(np.ascontiguousarray(image).data)
        return Seen(self.images + 1, digest.hexdigest())

    def check(self) -> None:
        """Check that there was an image.

        Raises:
            DataError: if there was none.

        """
        if not self.images:
            raise DataError("there are no calibration images", remedy="give at least one image with --data, better 128")


NOTHING_SEEN = Seen(0, "")


def observe(
    engine: ObservedModel,
    observers: Mapping[str, LayerObserver],
    images: Iterable[NDArray[np.float32]],
    before: Seen = NOTHING_SEEN,
) -> Generator[tuple[NDArray[np.float32], Seen]]:
    """Show the input of each layer that has one of ``observers`` to it, image (1, C, H, W) after image.

    An observer has one image at a time, in their order, whatever the number of threads. Yield each image, with what has
    been seen, those ``before`` included: all observers have had it by then, and none has had the next one. Who stops
    before the end closes it: threads wait in it.

    Raises:
        GraphError: if an activation is not finite; the message names the layer and the image.
        DataError: if the images do not fit the model.

    """
    names = [*engine.layers, *engine.others]
    last: tuple[NDArray[np.float32], Seen] | None = None
    pending: list[Future[_LayerFailure | None]] = []
    threads = min(usable_cores(), _MOST_THREADS)
    # Products of matrices keep to one thread each: layers are observed side by side, and the engine has the others.
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        for image in images:
            found = dict(zip(names, engine.run(image), strict=True))  # while threads look at those of the last one
            if last is not None:
                _finish(pending)
                yield last
            seen = before if last is None else last[1]
            waiting = deque(
                _LayerInput(place, name, values, observers[name])
                for place, (name, values) in enumerate(found.items())
                if name in observers
            )
            pending = [pool.submit(_show, waiting, seen.images) for _ in range(threads)]
            del found, waiting  # the activations are gone once all have been looked at
            last = image, seen.then(image)
        if last is not None:
            _finish(pending)
            yield last


def observe_all(
    engine: ObservedModel, observers: Mapping[str, LayerObserver], images: Iterable[NDArray[np.float32]]
) -> None:
    """Do what ``observe`` does, for all images at once.

    Raises:
        GraphError: if an activation is not finite; the message names the layer and the image.
        DataError: if there are no images, or they do not fit the model.

    """
    seen = NOTHING_SEEN
    with closing(observe(engine, observers, images)) as passing:
        for _, after in passing:
            seen = after
    seen.check()


class _LayerInput(NamedTuple):
    """The input of a layer for one image, and where the layer stands among the others."""

    place: int
    name: str
    values: NDArray[np.float32]
    observer: LayerObserver


class _LayerFailure(NamedTuple):
    """What an observer had against the input of the layer at ``place``."""

    place: int
    error: Exception


def _show(waiting: deque[_LayerInput], image: int) -> _LayerFailure | None:
    """Show inputs to their observers, as several threads do, until none is ``waiting``, or one is wrong.

    To hand each layer to a thread of its own choice takes longer than to look at a small one.
    """
    while True:
        try:
            each = waiting.popleft()
        except IndexError:
            return None
        try:
            _check_finite(each.name, each.values, image)
            each.observer.update(each.values)
        except Exception as error:  # noqa: BLE001 - it is raised by who waits, that of the first layer
            return _LayerFailure(each.place, error)
        del each


def _finish(pending: Iterable[Future[_LayerFailure | None]]) -> None:
    """Wait for all threads, and raise what the first layer that is wrong has against its input."""
    failures = [failure for each in pending if (failure := each.result()) is not None]
    if failures:
        raise min(failures, key=attrgetter("place")).error


def single_images(batches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield each image as a batch of one (1, C, H, W)."""
    for batch in batches:
        for image in batch:
            if not np.isfinite(image).all():
                raise DataError("a calibration image has values that are not finite", remedy="leave that image out")
            yield np.ascontiguousarray(image[None])


def _check_finite(name: str, values: NDArray[np.float32], image: int) -> None:
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):  # a NaN is both: no array of truths is needed
        raise GraphError(
            f"the input of '{name}' has values that are not finite on calibration image {image}",
            remedy="check that the model gives finite logits on this image in float32: its weights may be broken",
        )
