"""``edgevit serve``."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, OneVariant
from edgevit.dependencies import require
from edgevit.errors import MissingError
from edgevit.runtime import load
from edgevit.runtime.arguments import name_of_service

if TYPE_CHECKING:
    from edgevit.server.app import Service


def serve(
    bundle: BundlePath,
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model.", show_default="the bundle's name")
    ] = None,
    variant: OneVariant = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engine; 0 leaves their number to it.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many batches are in the engine at once.")] = 1,
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Most images at once.", show_default="what the variant was built for, or 1"),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, max=10_000, help="Requests that may wait; more get 503.")] = 64,
    max_body_mb: Annotated[int, typer.Option(min=1, max=1024, help="Largest body of a request, in MiB.")] = 16,
    max_pixels: Annotated[int, typer.Option(min=1, max=80_000_000, help="Largest image, in pixels.")] = 25_000_000,
    trusted_key: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Ask for a signature by this public Ed25519 key; can be given again."),
    ] = None,
) -> Result:
    """Answer over HTTP: the Open Inference Protocol, and images as they are; until a signal ends it."""
    uvicorn = require("uvicorn", extra="serve")
    require("fastapi", extra="serve")
    require("prometheus_client", extra="serve")
    from edgevit.server.app import Limits, Service, make_app
    from edgevit.server.connections import protocol_with

    with progress() as bars:
        model = load(bundle, variant=variant, threads=threads, trusted_keys=trusted_key or None, progress=bars)
        model.warm_up()
        called = name_of_service(name or model.info().model)
        service = Service(
            model,
            called,
            limits=Limits(
                body_bytes=max_body_mb << 20, pixels=max_pixels, queue=queue, connections=_most_connections(queue)
            ),
            batch=batch or model.info().batch or 1,
            workers=workers,
            decoders=max(2, os.cpu_count() or 1),
        )
        config = uvicorn.Config(
            make_app(service), host=host, port=port, log_level="warning", access_log=False, backlog=2 * queue,
            http=protocol_with(service.limits, service.refused_connection), ws="none",
            timeout_keep_alive=30, h11_max_incomplete_event_size=64 << 10,
        )  # fmt: skip
        try:
            _run(uvicorn, config, bars, service, str(model.info()))
        finally:
            service.close()
    return Result(data={"stopped": True}, text=Text("stopped; what was accepted has been answered"))


def _most_connections(queue: int) -> int:
    """Return how many clients may be connected: some more than may wait, and no more than there may be open files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(512, 2 * queue)
    return wanted if files == resource.RLIM_INFINITY else max(16, min(wanted, files - 128))


def _run(uvicorn: Any, config: Any, bars: Any, service: Service, info: str) -> None:  # noqa: ANN401
    """Serve until SIGTERM or SIGINT; say where, once it listens.

    Raises:
        MissingError: if it cannot listen there.
    """

    class Server(uvicorn.Server):  # type: ignore[misc]
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # As uvicorn's, which raises the signal again once all is answered: to be asked to end is no error here.
            before = {
                each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            }
            try:
                yield
            finally:
                for each, handler in before.items():
                    signal.signal(each, handler)

        async def startup(self, sockets: Any = None) -> None:  # noqa: ANN401
            await super().startup(sockets=sockets)
            for server in getattr(self, "servers", ()):
                host, port = server.sockets[0].getsockname()[:2]
                where = f"[{host}]" if ":" in host else host
                bars.note(f"serving {service.name} at http://{where}:{port}: {info}")

        async def shutdown(self, sockets: Any = None) -> None:  # noqa: ANN401
            service.stop_reading()
            await super().shutdown(sockets=sockets)

    try:
        Server(config).run()
    except SystemExit as error:  # uvicorn has said why
        raise MissingError(
            f"cannot listen on {config.host}:{config.port}",
            remedy="give another --port or --host, or end what listens there",
        ) from error
