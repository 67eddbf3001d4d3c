"""What the probes find of TensorRT: with a fake of each version, on a GPU or without one."""

import sys

import numpy as np
import pytest
from fake_tensorrt import expected_logits

from edgevit.backends import probes, tiny_model
from edgevit.backends.tensorrt import bindings, cuda
from edgevit.errors import MissingDependencyError


@pytest.fixture(autouse=True)
def answers(monkeypatch):
    """Let the fake's answers be those that are asked for."""
    logits = expected_logits(tiny_model.example(), 4)
    monkeypatch.setattr(tiny_model, "expected_logits", lambda: logits)


@pytest.fixture
def no_driver(monkeypatch):
    def refuse():
        raise MissingDependencyError("there is no NVIDIA driver here", remedy="get one")

    monkeypatch.setattr(cuda, "load_library", refuse)


def probe(fake):
    (found,) = probes.PROBES[fake.flavour]()
    return found


def test_a_model_is_built_and_run_on_the_gpu(fake, gpu):
    gpu.compute_capability = "8.6"
    found = probe(fake)
    assert (found.builds, found.runs, found.problem) == (True, True, None)
    assert (found.version, found.device_name, found.compute_capability) == (fake.listing.version, "Fake GPU", "8.6")


def test_wrong_answers_are_no_engine(fake, gpu, monkeypatch):
    gpu.compute_capability = "8.6"
    monkeypatch.setattr(tiny_model, "expected_logits", lambda: np.zeros((1, 4), dtype=np.float32))
    found = probe(fake)
    assert (found.builds, found.runs, found.problem) == (
        True,
        False,
        f"{fake.flavour} computes wrong answers on the GPU",
    )


def test_without_a_driver_tensorrt_is_not_touched_and_rtx_compiles(fake, no_driver, gpu):
    found = probe(fake)  # a builder of TensorRT's would end the process
    assert (found.version, found.runs, found.remedy) == (fake.listing.version, False, "get one")
    assert found.builds == (fake.flavour == "tensorrt-rtx")
    assert found.compute_capability is None


def test_rtx_compiles_for_other_gpus_where_it_does_not_for_this_one(install, gpu):
    gpu.compute_capability = "9.0"
    found = probe(install("rtx-1.7.1"))
    assert (found.builds, found.runs, found.compute_capability) == (True, False, "9.0")
    assert found.problem.endswith("does not compile for compute capability 9.0")


def test_a_gpu_without_memory_is_no_engine(fake, gpu):
    gpu.compute_capability, gpu.free = "8.6", 10
    found = probe(fake)
    assert not found.runs
    assert "memory" in found.problem + found.remedy


def test_a_jetson_is_sent_to_apt(monkeypatch, tmp_path, no_driver):
    (tmp_path / "nv_tegra_release").touch()
    monkeypatch.setattr(bindings, "_JETSON", tmp_path / "nv_tegra_release")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    (found,) = probes.probe_engine("tensorrt")
    assert "sudo apt install tensorrt" in found.remedy
    assert "--system-site-packages" in found.remedy


def test_a_missing_driver_comes_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda, "_LIBRARY", "libcuda-that-is-not-here.so.1")
    for jetson, remedy in (("nowhere", "sudo apt install nvidia-driver"), ("", "sudo apt install nvidia-jetpack")):
        monkeypatch.setattr(bindings, "_JETSON", tmp_path / jetson)
        with pytest.raises(MissingDependencyError, match="there is no NVIDIA driver") as caught:
            cuda.open_driver()
        assert remedy in caught.value.remedy
