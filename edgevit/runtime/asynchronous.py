"""A loaded model for asyncio: the engine works in threads, and the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgevit.brief import in_brief
from edgevit.data.images import Channels, ImageSource
from edgevit.errors import InputError
from edgevit.processor import most_threads
from edgevit.runtime.arguments import whole_number
from edgevit.runtime.model import Model
from edgevit.runtime.prediction import Prediction
from edgevit.runtime.streaming import Streamed, answered, is_camera, iterable

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class AsyncModel:
    """A model for asyncio: its methods are awaited, and ``async with`` frees it.

    At most ``workers`` calls run at once; the others wait in the order in which they were made. A call that is
    cancelled while it waits is never started; one that has started runs to its end in its thread.

    .. code-block:: python

        async with AsyncModel(load("shirts.edgevit")) as model:
            print(await model.predict("photo.jpg"))
    """

    def __init__(self, model: Model, *, workers: int = 2) -> None:
        if not isinstance(model, Model):
            raise InputError(f"model is {in_brief(model)}", remedy="give what edgevit.load() returns")
        self.model, self._closed = model, False
        workers = whole_number("workers", workers, least=1, most=most_threads())
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="edgevit")

    async def predict(
        self, image: ImageSource, *, top: int = 5, threshold: float | None = None, channels: Channels = "rgb"
    ) -> list[Prediction]:
        """Return what ``Model.predict`` does."""
        return await self._call(self.model.predict, image, top=top, threshold=threshold, channels=channels)

    async def predict_batch(
        self,
        images: Sequence[ImageSource],
        *,
        top: int = 5,
        threshold: float | None = None,
        channels: Channels = "rgb",
    ) -> list[list[Prediction]]:
        """Return what ``Model.predict_batch`` does."""
        return await self._call(self.model.predict_batch, images, top=top, threshold=threshold, channels=channels)

    async def embed(self, image: ImageSource, *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """Return what ``Model.embed`` does."""
        return await self._call(self.model.embed, image, channels=channels)

    async def tokens(self, image: ImageSource, *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """Return what ``Model.tokens`` does."""
        return await self._call(self.model.tokens, image, channels=channels)

    async def outputs(self, image: ImageSource, *, channels: Channels = "rgb") -> dict[str, NDArray[np.float32]]:
        """Return what ``Model.outputs`` does."""
        return await self._call(self.model.outputs, image, channels=channels)

    async def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what ``Model.infer`` does."""
        return await self._call(self.model.infer, images)

    async def stream(
        self,
        images: AsyncIterable[ImageSource] | Iterable[ImageSource],
        *,
        ahead: int = 2,
        top: int = 5,
        threshold: float | None = None,
        channels: Channels = "rgb",
    ) -> AsyncIterator[Streamed]:
        """Yield an answer for each of ``images`` in order, while at most ``ahead`` more are being processed.

        An image that cannot be read is yielded with its ``error``. A plain iterable is read in the event loop, so it
        must not block. For a camera, run ``Model.stream`` in a thread.
        """
        waiting: list[asyncio.Task[Streamed]] = []
        ahead = whole_number("ahead", ahead, least=1)
        index = 0
        try:
            async for image in _each(images):
                one = self._call(answered, self.model, index, image, channels=channels, top=top, threshold=threshold)
                waiting.append(asyncio.ensure_future(one))
                index += 1
                if len(waiting) > ahead:
                    yield await waiting.pop(0)
            while waiting:
                yield await waiting.pop(0)
        finally:
            for each in waiting:
                each.cancel()

    async def aclose(self) -> None:
        """Free the model when the calls that have started are done."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown, wait=True)
        self.model.close()

    async def _call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:  # noqa: ANN401
        if self._closed:
            raise InputError("the model has been closed", remedy="load it again")
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *arguments, **named))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _each(images: AsyncIterable[ImageSource] | Iterable[ImageSource]) -> AsyncIterator[ImageSource]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
        return
    if is_camera(images):
        raise InputError("images are a camera, which waits for its frames", remedy="use Model.stream in a thread")
    for image in iterable(images):
        yield image
