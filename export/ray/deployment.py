"""A deployment of EdgeViT on Ray Serve, to be copied and changed: image files in, classes or outputs out.

On a cluster whose nodes all have the pack at the same path, with EdgeViT and ray[serve]::

    serve run deployment:build pack=/models/model.edgevit.zip replicas=2
    curl --data-binary @photo.jpg http://127.0.0.1:8000/
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from edgevit.errors import DataError, EdgeViTError, ImageError, InputError
from edgevit.runtime import AsyncModel, load

MOST_BYTES = 16 << 20


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What ``serve run`` is given behind the name of the builder.

    ``pack`` is a path that each node has. ``threads`` are the engine's, and as many CPUs are reserved for a replica.
    """

    pack: str
    variant: str | None = None
    replicas: int = 2
    threads: int = 1
    trusted_key: str | None = None


# Two calls in the model keep it busy; what waits beyond the queue gets 503 from Ray.
@serve.deployment(max_ongoing_requests=4, max_queued_requests=64)
class Classifier:
    """A model on a node; a replica that does not give the validated answers does not start."""

    def __init__(self, options: Options) -> None:
        keys = None if options.trusted_key is None else [options.trusted_key]
        model = load(options.pack, variant=options.variant, threads=options.threads, trusted_keys=keys)
        model.warm_up()
        self._model = AsyncModel(model, workers=2)

    async def __call__(self, request: Request) -> Response:
        """Answer to a request, whose body is an image file."""
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > MOST_BYTES:
                return _json({"error": f"at most {MOST_BYTES} bytes are read"}, 413)
        try:
            return _json(await self._answer(bytes(content)))
        except (ImageError, DataError, InputError) as error:
            return _json({"error": f"{error.message} ({error.remedy})"}, 400)
        except EdgeViTError as error:
            return _json({"error": error.message}, 500)

    async def _answer(self, content: bytes) -> Any:  # noqa: ANN401 - JSON
        if self._model.model.labels:
            return {"predictions": await self._model.predict(content)}
        outputs = await self._model.outputs(content)
        return {
            "outputs": {name: {"shape": each.shape, "data": each.ravel().tolist()} for name, each in outputs.items()}
        }

    def info(self) -> dict[str, Any]:
        """Return what was loaded, and on which node."""
        return {"node": ray.get_runtime_context().get_node_id(), **self._model.model.info().to_dict()}

    async def check_health(self) -> None:
        """Raise where the model has been closed; Ray asks every ten seconds and replaces the replica then."""
        await asyncio.wait_for(self._model.outputs(self._black()), 10)

    def _black(self) -> Any:  # noqa: ANN401
        import numpy as np

        return np.zeros((*self._model.model.preprocess.size, 3), np.uint8)


def build(arguments: dict[str, str]) -> serve.Application:
    """Return the application for ``serve run deployment:build KEY=VALUE ...``; replicas go to different nodes."""
    options = msgspec.convert(arguments, Options, strict=False)
    spread = Classifier.options(
        num_replicas=options.replicas, max_replicas_per_node=1, ray_actor_options={"num_cpus": options.threads}
    )
    return spread.bind(options)


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
