"""A server of a small model, and the same model in Python."""

from contextlib import closing
from functools import partial

import pytest
import service_host
from fork_server import ForkServer
from tiny import fork

import edgevit as public
from edgevit.runtime import load


@pytest.fixture(scope="module")
def pack(tiny_quantized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    return public.pack(tiny_quantized, folder / "tiny.edgevit.zip", variants=["float32"]).path


@pytest.fixture(scope="session")
def forked_serve():
    """Return what starts the command line as ``tiny.start`` does, in processes that have loaded what serves."""
    commands = ("edgevit.cli.serve", "edgevit.server.app", "edgevit.server.connections", "edgevit.backends.onnxruntime")
    late = ("uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.h11_impl", "numpy.random")
    with closing(ForkServer(*commands, "onnxruntime", "uvicorn", *late)) as server:
        yield partial(fork, server)


@pytest.fixture(scope="session")
def serving(forked_serve):
    """Return what does as ``service_host.serving`` in such processes; ``server`` starts as a user's does."""
    return partial(service_host.serving, start=forked_serve)


@pytest.fixture(scope="module")
def server(pack, tmp_path_factory):
    options = ("--max-body-mb", "1", "--max-pixels", "10000")
    with service_host.serving(pack, tmp_path_factory.mktemp("server"), *options) as (address, _):
        yield address


@pytest.fixture(scope="module")
def model(pack):
    with load(pack, variant="float32", threads=1) as loaded:
        yield loaded
