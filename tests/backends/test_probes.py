"""What each probe finds: of engines that are here, and of stand-ins for those that are not, or are broken."""

import ctypes
import sys
import types

import numpy as np
import pytest

from edgevit.backends import probes, tiny_model
from edgevit.backends.onnxruntime import OnnxRuntimeSession
from edgevit.errors import MissingDependencyError


def test_engines_that_are_here_run():
    (onnxruntime,) = probes.probe_onnxruntime()
    assert (onnxruntime.builds, onnxruntime.runs, onnxruntime.problem) == (True, True, None)
    assert onnxruntime.version == sys.modules["onnxruntime"].__version__
    cpu, *others = probes.probe_openvino()
    assert (cpu.device, cpu.builds, cpu.runs) == ("CPU", True, True)
    assert [finding.device for finding in others] == ["GPU", "NPU"]
    for finding in others:
        assert finding.runs or "sudo" in finding.remedy


def test_wrong_answers_are_no_engine(monkeypatch):
    monkeypatch.setattr(OnnxRuntimeSession, "infer", lambda self, images: np.zeros_like(tiny_model.answer()))
    (found,) = probes.probe_onnxruntime()
    assert not found.runs
    assert found.problem == "onnxruntime computes wrong answers on the CPU"


@pytest.mark.parametrize(
    ("name", "module", "remedy"),
    [
        ("onnxruntime", "onnxruntime", 'pip install "edgevit[onnxruntime]"'),
        ("openvino", "openvino", 'pip install "edgevit[openvino]"'),
        ("tensorrt", "tensorrt", "pip install tensorrt"),
        ("tensorrt-rtx", "tensorrt_rtx", 'pip install "edgevit[tensorrt-rtx]"'),
        ("train", "torch", 'pip install "edgevit[train]"'),
        ("quantize", "onnx_ir", 'pip install "edgevit[quantize]"'),
        ("report", "jinja2", 'pip install "edgevit[report]"'),
    ],
)
def test_what_is_missing_comes_with_its_command(monkeypatch, name, module, remedy):
    monkeypatch.setitem(sys.modules, module, None)
    for found in probes.PROBES[name]():
        assert not found.runs
        assert not found.builds
        assert found.version is None
        assert found.problem == f"the Python package '{module}' is not installed"
        assert remedy in found.remedy


def test_a_jetson_is_sent_to_apt(monkeypatch, tmp_path):
    (tmp_path / "nv_tegra_release").touch()
    monkeypatch.setattr(probes, "_JETSON", tmp_path / "nv_tegra_release")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    (found,) = probes.probe_tensorrt()
    assert "sudo apt install tensorrt" in found.remedy
    assert "--system-site-packages" in found.remedy


class FakeDriver:
    """The driver's library with one GPU, or a call that fails."""

    def __init__(self, failing=None):
        self._failing = failing

    def __getattr__(self, function):
        def call(*arguments):
            if function == self._failing:
                return 100
            if function == "cuDeviceGetName":
                arguments[0].value = b"Orin"
            elif function == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {75: 8, 76: 7}[arguments[1]]
            return 0

        return call


@pytest.fixture
def engine(monkeypatch):
    """Return a function that puts a stand-in for TensorRT's bindings, and for the driver, in place."""

    def put(module, driver, builder=object):
        bindings = types.ModuleType(module)
        bindings.__version__ = "10.3.0"
        bindings.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, severity: None})
        bindings.Builder = lambda logger: builder() if builder else None
        monkeypatch.setitem(sys.modules, module, bindings)
        if driver is not None:
            monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)

    return put


def test_tensorrt_with_a_gpu_runs(engine):
    engine("tensorrt", FakeDriver())
    (found,) = probes.probe_tensorrt()
    assert (found.version, found.compute_capability, found.device_name) == ("10.3.0", "8.7", "Orin")
    assert found.runs
    assert found.builds


def test_tensorrt_is_not_touched_without_a_driver(engine):
    def crash():
        pytest.fail("a builder without a driver can end the process")

    engine("tensorrt", FakeDriver("cuInit"), crash)
    (found,) = probes.probe_tensorrt()
    assert (found.builds, found.runs, found.version) == (False, False, "10.3.0")
    assert found.problem == "the NVIDIA driver finds no GPU: cuInit gives error 100"


def test_tensorrt_rtx_builds_without_a_gpu(engine):
    engine("tensorrt_rtx", FakeDriver("cuInit"))
    (found,) = probes.probe_tensorrt_rtx()
    assert (found.builds, found.runs) == (True, False)


def test_a_builder_that_is_none_is_no_engine(engine):
    engine("tensorrt", FakeDriver(), None)
    (found,) = probes.probe_tensorrt()
    assert (found.builds, found.runs, found.problem) == (False, False, "it makes no builder")


def test_no_driver_says_how_to_get_it(monkeypatch):
    def refuse(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    with pytest.raises(MissingDependencyError, match="there is no NVIDIA driver") as caught:
        probes.nvidia_gpu()
    assert "install" in caught.value.remedy
