"""The real worker command with the real backends, on a model of one layer."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgevit.evaluation.candidates import Candidate
from edgevit.evaluation.latency import measure_latency
from edgevit.evaluation.load import Load
from edgevit.models.spec import ModelSpec
from edgevit.system import usable_cores

pytestmark = pytest.mark.usefixtures("all_cores")

SPEC = ModelSpec(image_size=(8, 8), patch_size=(8, 8), width=4, depth=1, heads=1, classes=3, channels=1)


@pytest.fixture
def model(tmp_path) -> Path:
    """Return an ONNX file of one Linear layer over the pixels."""
    onnx = pytest.importorskip("onnx")
    helper, tensor = onnx.helper, onnx.TensorProto
    weight = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["pixels"], axis=1),
            helper.make_node("MatMul", ["pixels", "weight"], ["logits"]),
        ],
        "one-layer",
        [helper.make_tensor_value_info("images", tensor.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", tensor.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_real_backend_is_timed_in_its_own_process(backend, model, tmp_path):
    pytest.importorskip(backend)
    from edgevit.backends import get_backend

    built = get_backend(backend).build(model, tmp_path / "built")[0]
    candidate = Candidate(name="float32", backend=backend, model=built, settings={}, baseline="float32")
    result = measure_latency([candidate], Load(batch=2, threads=1, duration_s=0.1), spec=SPEC)[0]
    assert result.p50_ms is not None, result.invalid_reason
    assert 0 < result.p50_ms <= result.p90_ms <= result.p99_ms
    assert result.throughput_ips > 0
    assert result.rss_mb > 20
    assert result.cold_start_ms > result.p50_ms


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")
def test_hogs_on_the_machine_make_a_run_invalid(model):
    """Half of the cores are more than a tenth of their time; nothing is stubbed here."""
    pytest.importorskip("onnxruntime")
    hog = "print(flush=True)\nwhile True: pass"
    command = [sys.executable, "-c", hog]
    hogs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(max(2, usable_cores() // 2))]
    try:
        for each in hogs:
            each.stdout.readline()
        candidate = Candidate(name="float32", backend="onnxruntime", model=model, settings={}, baseline="float32")
        result = measure_latency([candidate], Load(threads=1, duration_s=0.4), spec=SPEC)[0]
    finally:
        for each in hogs:
            each.kill()
            each.communicate()
    assert not result.valid
    assert "other processes took" in result.invalid_reason
    assert result.machine.other_load > 0.1


def test_a_file_that_is_no_model_is_a_reason(tmp_path):
    pytest.importorskip("onnxruntime")
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"not a model")
    candidate = Candidate(name="float32", backend="onnxruntime", model=broken, settings={}, baseline="float32")
    result = measure_latency([candidate], Load(threads=1, duration_s=0.1), spec=SPEC)[0]
    assert not result.valid
    assert str(broken) in result.invalid_reason


def test_a_backend_that_does_not_exist_is_a_reason(model):
    candidate = Candidate(name="float32", backend="abacus", model=model, settings={}, baseline="float32")
    result = measure_latency([candidate], Load(threads=1, duration_s=0.1), spec=SPEC)[0]
    assert not result.valid
    assert "abacus" in result.invalid_reason
