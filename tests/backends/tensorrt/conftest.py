"""TensorRT of each version, and a GPU, that are fakes."""

import sys

import pytest
from fake_cuda import FakeCuda
from fake_tensorrt import Fake
from trt_contract import listings

from edgevit.backends.tensorrt import cuda as cuda_module
from edgevit.backends.tensorrt import trtexec

LISTINGS = listings()
VERSIONS = tuple(LISTINGS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep what is cached in a folder of the test's own, and let no real TensorRT or driver be found."""
    monkeypatch.setenv("EDGEVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trtexec, "_PLACES", ())
    return tmp_path / "cache"


@pytest.fixture
def gpu(monkeypatch):
    """Return a fake GPU, an Orin's, whose driver is found; all of its memory must be free in the end."""
    gpu = FakeCuda()
    monkeypatch.setattr(cuda_module, "load_library", lambda: gpu)
    yield gpu
    assert gpu.alive() == 0


@pytest.fixture
def install(monkeypatch, gpu):
    """Return what makes the bindings of a version those that are installed."""

    def use(version):
        fake = Fake(version, LISTINGS[version], gpu)
        monkeypatch.setitem(sys.modules, fake.module.__name__, fake.module)
        return fake

    return use


@pytest.fixture(params=VERSIONS)
def fake(request, install):
    """Return the bindings of each version in turn."""
    return install(request.param)
