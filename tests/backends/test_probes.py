"""What each probe finds: of engines that are here, and of those that are taken away."""

import sys

import numpy as np
import pytest

from edgevit.backends import probes, tiny_model
from edgevit.backends.onnxruntime import OnnxRuntimeSession


def test_engines_that_are_here_run():
    (onnxruntime,) = probes.probe_engine("onnxruntime")
    assert (onnxruntime.builds, onnxruntime.runs, onnxruntime.problem) == (True, True, None)
    assert onnxruntime.version == sys.modules["onnxruntime"].__version__
    cpu, *others = probes.probe_engine("openvino")
    assert (cpu.device, cpu.builds, cpu.runs) == ("CPU", True, True)
    assert [finding.device for finding in others] == ["GPU", "NPU"]
    for finding in others:
        assert finding.runs or "sudo" in finding.remedy


def test_wrong_answers_are_no_engine(monkeypatch):
    monkeypatch.setattr(OnnxRuntimeSession, "infer", lambda self, images: np.zeros_like(tiny_model.expected_logits()))
    (found,) = probes.probe_engine("onnxruntime")
    assert not found.runs
    assert found.problem == "onnxruntime computes wrong answers on the CPU"


@pytest.mark.parametrize(
    ("name", "module", "remedy"),
    [
        ("onnxruntime", "onnxruntime", "pip install -e '.[onnxruntime]'"),
        ("openvino", "openvino", "pip install -e '.[openvino]'"),
        ("tensorrt", "tensorrt", "pip install tensorrt"),
        ("tensorrt-rtx", "tensorrt_rtx", "pip install -e '.[tensorrt-rtx]'"),
        ("train", "torch", "pip install -e '.[train]'"),
        ("quantize", "onnx_ir", "pip install -e '.[quantize]'"),
        ("report", "jinja2", "pip install -e '.[report]'"),
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
