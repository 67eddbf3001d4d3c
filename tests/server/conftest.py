"""A server of a small model, and the same model in Python."""

import pytest
from service_host import serving

import edgevit as public
from edgevit.runtime import load


@pytest.fixture(scope="module")
def pack(tiny_quantized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    return public.pack(tiny_quantized, folder / "tiny.edgevit.zip", variants=["float32"]).path


@pytest.fixture(scope="module")
def server(pack, tmp_path_factory):
    with serving(pack, tmp_path_factory.mktemp("server"), "--max-body-mb", "1", "--max-pixels", "10000") as (
        address,
        _,
    ):
        yield address


@pytest.fixture(scope="module")
def model(pack):
    with load(pack, variant="float32", threads=1) as loaded:
        yield loaded
