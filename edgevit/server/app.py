"""The service's endpoints, on FastAPI."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray

from edgevit import __version__
from edgevit.data.images import pixels_of
from edgevit.errors import DataError, EdgeViTError, ImageError, InputError
from edgevit.runtime import Model
from edgevit.server.batching import Batcher, Busy
from edgevit.server.metrics import Metrics
from edgevit.server.protocol import EXTENSIONS, JSON_BYTES, VERSION, Answer, metadata_of, read_request, response_of

_RETRY_AFTER = "1"  # seconds
_LAST_SECONDS = 1.0  # for bodies on their way when the service is asked to end
_TIMEOUT = 408
_GONE = 499  # as nginx counts clients that went before their answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may ask for: bytes of a body, pixels of an image, images of a request, requests that wait.

    A body has to be there in ``body_seconds``, and all bodies together take at most ``held_bytes``, or one's bytes.
    ``connections``, ``header_seconds`` and ``write_seconds`` are as in ``ConnectionLimits``.
    """

    body_bytes: int = 16 << 20
    body_seconds: float = 60.0
    held_bytes: int = 256 << 20
    pixels: int = 25_000_000
    images: int = 32
    queue: int = 64
    connections: int = 512
    header_seconds: float = 10.0
    write_seconds: float = 60.0


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


class Service:
    """A model behind HTTP: its queue, its decoders and its metrics."""

    def __init__(self, model: Model, name: str, *, limits: Limits, batch: int, workers: int, decoders: int) -> None:
        self.model, self.name, self.limits = model, name, limits
        self.metadata = metadata_of(name, model)
        self.metrics = Metrics(model.info(), lambda: self._batcher.waiting)
        self._batcher = Batcher(model.infer, batch=batch, most=limits.queue, workers=workers, seen=self.metrics.seen)
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="edgevit-decode")
        self._at_once = asyncio.Semaphore(limits.queue)
        self._reading: set[asyncio.Future[None]] = set()
        self._held = 0
        self.ready = True

    def refused_connection(self, status: int) -> None:
        """Count a connection that was ended before there was a request."""
        self.metrics.requests.labels("none", str(status)).inc()

    def close(self) -> None:
        """Take nothing more, and finish what was accepted."""
        self.ready = False
        self._decoders.shutdown(wait=True)
        self._batcher.close()
        self.model.close()

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Have the body of a request, no more of which is read than it may have, in no more time than it may take."""
        parts: list[bytes] = []
        reading = asyncio.ensure_future(self._read(request, parts))
        self._reading.add(reading)
        try:
            await asyncio.wait({reading}, timeout=self.limits.body_seconds)
            if not reading.done():
                raise _Refused(_TIMEOUT, f"the body was not there within {self.limits.body_seconds:g} seconds")
            if reading.cancelled():
                raise Busy("the service is shutting down")
            reading.result()
            yield b"".join(parts)
        finally:
            reading.cancel()
            self._reading.discard(reading)
            self._held -= sum(map(len, parts))

    def stop_reading(self) -> None:
        """Give up the requests that are not wholly there in a moment: they may never be."""

        def give_up() -> None:
            for reading in self._reading:
                reading.cancel()

        asyncio.get_running_loop().call_later(_LAST_SECONDS, give_up)

    async def _read(self, request: Request, parts: list[bytes]) -> None:
        most = self.limits.body_bytes
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            raise _Refused(413, f"the body has {declared} bytes, and at most {most} are read")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise _Refused(415, f"the body is {request.headers['content-encoding']}, and is taken as it is alone")
        size, more = 0, True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise _Refused(_GONE, "the client has gone")
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size > most:
                raise _Refused(413, f"the body has more than {most} bytes")
            if self._held + len(part) > max(most, self.limits.held_bytes):
                raise Busy("the bodies of other requests fill the memory")
            self._held += len(part)
            parts.append(part)

    async def rows(self, prepare: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return what the model gives for what ``prepare`` makes, in a thread that decodes."""
        if not self.ready:
            raise Busy("the service is shutting down")
        if self._at_once.locked():  # as many are being decoded as may wait: more would only fill the memory
            raise Busy("the queue is full")
        async with self._at_once:
            images = await asyncio.get_running_loop().run_in_executor(self._decoders, prepare)
            return await asyncio.wrap_future(self._batcher.submit(images))

    def prepared(self, content: bytes) -> NDArray[np.float32]:
        """Return an image file as the model's input (1, C, H, W)."""
        try:
            pixels = pixels_of(content)
        except ImageError as error:
            raise _Refused(413, f"the image is too large: at most {self.limits.pixels} pixels are decoded") from error
        if pixels > self.limits.pixels:
            raise _Refused(413, f"the image has {pixels} pixels, and at most {self.limits.pixels} are decoded")
        return self.model.prepare([content])


def make_app(service: Service) -> FastAPI:
    """Return the application; it closes ``service`` when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_information(app, service)
    _add_inference(app, service)
    _add_errors(app)
    return app


def _add_information(app: FastAPI, service: Service) -> None:
    """Add what tells of the server and its model."""
    here = f"/v2/models/{service.name}"

    @app.get("/v2")
    async def server() -> Response:
        return _json({"name": "edgevit", "version": __version__, "extensions": EXTENSIONS})

    @app.get("/v2/health/live")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready")
    @app.get(f"{here}/ready")
    @app.get(f"{here}/versions/{VERSION}/ready")
    async def ready() -> Response:
        return _json({"name": service.name, "ready": service.ready}, 200 if service.ready else 503)

    @app.get(here)
    @app.get(f"{here}/versions/{VERSION}")
    async def metadata() -> Response:
        return _json(service.metadata)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_inference(app: FastAPI, service: Service) -> None:
    """Add what runs the model."""
    model = service.model

    @app.post(f"/v2/models/{service.name}/infer")
    @app.post(f"/v2/models/{service.name}/versions/{VERSION}/infer")
    async def infer(request: Request) -> Response:
        async def call() -> Answer:
            async with service.body(request) as body:
                asked, images = await asyncio.to_thread(
                    read_request, body, model, most_images=service.limits.images, json_bytes=_json_bytes(request)
                )
                return response_of(service.name, model, asked, await service.rows(lambda: images))

        return await _answered(service, "infer", call)

    @app.post("/v1/predict")
    async def predict(request: Request, top: int = 5) -> Response:
        async def call() -> Answer:
            async with service.body(request) as content:
                rows = await service.rows(lambda: service.prepared(content))
            predictions, outputs = model.answer(rows, top=top)
            said: dict[str, object] = {"model": service.name, "variant": model.variant.name}
            if predictions is not None:
                return Answer(msgspec.json.encode(said | {"predictions": predictions}))
            given = {name: {"shape": each.shape, "data": each.ravel().tolist()} for name, each in outputs.items()}
            return Answer(msgspec.json.encode(said | {"outputs": given}))

        return await _answered(service, "predict", call)


def _add_errors(app: FastAPI) -> None:
    """Have errors that the framework finds look as all others do."""

    @app.exception_handler(404)
    async def absent(request: Request, _: Exception) -> Response:
        return Response(_error(f"there is no {request.url.path}"), 404, media_type="application/json")

    @app.exception_handler(405)
    async def wrong_method(request: Request, error: Exception) -> Response:
        said = f"{request.url.path} does not take {request.method}"
        return Response(_error(said), 405, getattr(error, "headers", None), "application/json")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        said = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return Response(_error(said), 400, media_type="application/json")


async def _answered(service: Service, endpoint: str, call: Callable[[], Awaitable[Answer]]) -> Response:
    """Return what ``call`` does as a response, or why it does not; both are counted."""
    start = time.perf_counter()
    headers: Mapping[str, str] = {}
    media = Answer(b"").media
    try:
        status, (content, media, headers) = 200, await call()
        service.metrics.seconds.observe(time.perf_counter() - start)
    except Busy as busy:
        status, content, headers = 503, _error(busy.reason), {"Retry-After": _RETRY_AFTER}
    except _Refused as refused:
        status, content = refused.status, _error(refused.message)
        if status == _TIMEOUT:  # the rest of the body is not waited for
            headers = {"Connection": "close"}
    except (ImageError, DataError, InputError) as error:
        status, content = 400, _error(f"{error.message} ({error.remedy})")
    except EdgeViTError as error:
        status, content = 500, _error(error.message)
    except MemoryError:
        status, content, headers = 503, _error("there is not enough memory"), {"Retry-After": _RETRY_AFTER}
    service.metrics.requests.labels(endpoint, str(status)).inc()
    return Response(content, status, headers, media)


def _json_bytes(request: Request) -> str | None:
    """Return what a client says of how much of its body is JSON; None where it says nothing."""
    given = request.headers.getlist(JSON_BYTES)
    return ", ".join(given) if given else None  # several are no number


def _error(message: str) -> bytes:
    return msgspec.json.encode({"error": message})


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
