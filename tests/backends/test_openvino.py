import json
import subprocess
import sys

import numpy as np
import onnx
import onnx.reference
import pytest
from cores import in_a_process
from onnx_files import emit_float16, scan_float16

from edgevit.backends import get_backend
from edgevit.backends.base import BatchProfile, BuildOptions
from edgevit.bundle.store import Bundle
from edgevit.errors import BundleError, GraphError


def test_the_precision_is_pinned_unless_a_setting_says_otherwise(model, tmp_path):
    backend = get_backend("openvino")
    path = backend.build(model, tmp_path)[0]
    for settings, expected in (({}, "float32"), ({"INFERENCE_PRECISION_HINT": "f32"}, "float32")):
        with backend.open(path, threads=1, settings=settings) as session:
            hint = session._compiled.get_property("INFERENCE_PRECISION_HINT")
            assert hint.to_dtype() == np.dtype(expected)
            assert session._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    pinned = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    assert pinned.items() <= backend.settings.items()


def test_a_processor_without_bf16_computes_in_float32(model, tmp_path, monkeypatch):
    """A bundle that was built where BF16 is faster must open anywhere."""
    import openvino

    backend = get_backend("openvino")
    path = backend.build(model, tmp_path)[0]

    def precision():
        with backend.open(path, threads=1, settings={"INFERENCE_PRECISION_HINT": "bf16"}) as session:
            return session._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()

    has_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert precision() == ("bf16" if has_bf16 else "f32")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    assert precision() == "f32"


def test_a_precision_that_there_is_not(model, tmp_path):
    backend = get_backend("openvino")
    path = backend.build(model, tmp_path)[0]
    with pytest.raises(BundleError, match="i3"):
        backend.open(path, threads=1, settings={"INFERENCE_PRECISION_HINT": "i3"})


def test_weights_stay_float32(model, tmp_path):
    files = get_backend("openvino").build(model, tmp_path)
    constants = {constant.name: constant for constant in onnx.load(model).graph.initializer}
    content = files[1].read_bytes()
    assert constants["fc1.weight"].raw_data in content
    assert constants["head.weight"].raw_data in content


def test_an_onnx_file_that_cannot_be_read(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"garbage")
    with pytest.raises(GraphError, match=r"cannot read .*model\.onnx"):
        get_backend("openvino").build(tmp_path / "model.onnx", tmp_path / "built")


@pytest.mark.parametrize(
    ("said", "instead", "message"),
    [
        ('version="opset1"', 'version="opset99"', "unsupported opset: opset99"),
        ('type="MatMul"', 'type="MatMax"', "MatMax"),
    ],
)
def test_an_ir_with_operators_that_this_openvino_does_not_have(model, tmp_path, said, instead, message):
    backend = get_backend("openvino")
    path = backend.build(model, tmp_path)[0]
    assert said in path.read_text()
    path.write_text(path.read_text().replace(said, instead))
    with pytest.raises(BundleError, match=message) as caught:
        backend.open(path, threads=1, settings={})
    assert caught.value.remedy == "build this variant again"


def test_float16_constants_stay_float16(tiny_exported, tmp_path):
    float32 = Bundle.open(tiny_exported).verify_files("float32")
    shapes = [np.zeros((2, 3, 16, 16), dtype=np.float32)]
    emit_float16(float32, scan_float16(float32, shapes, total=1), tmp_path / "fp16.onnx")
    backend = get_backend("openvino")
    sizes = {}
    for name, source in (("float32", float32), ("fp16", tmp_path / "fp16.onnx")):
        path, weights = backend.build(source, tmp_path / name)
        constants = [node for node in backend._read(path).get_ops() if node.get_type_name() == "Constant"]
        types = {node.get_element_type().get_type_name() for node in constants}
        assert types == {"f32" if name == "float32" else "f16", "i64"}
        sizes[name] = weights.stat().st_size
    assert sizes["fp16"] < 0.6 * sizes["float32"]


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_weights(model, tmp_path, damage):
    backend = get_backend("openvino")
    path, weights = backend.build(model, tmp_path)
    content = weights.read_bytes()
    weights.unlink()
    if damage == "cut":
        weights.write_bytes(content[:40])
    with pytest.raises(BundleError, match=r"model\.xml"):
        backend.open(path, threads=1, settings={})


TELEMETRY = """
import sys
from edgevit.backends import get_backend
from edgevit.backends.base import BatchProfile, BuildOptions
{before}
get_backend("openvino")
import openvino.tools.ovc.telemetry_utils as used
assert used.tm.__name__ == "openvino.tools.ovc.telemetry_stub", used.tm
{after}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "assert 'openvino_telemetry' not in sys.modules"),
        ("import openvino_telemetry as own", "assert sys.modules['openvino_telemetry'] is own"),
    ],
)
def test_openvino_calls_out_to_nobody(before, after):
    code = TELEMETRY.format(before=before, after=after)
    subprocess.run([sys.executable, "-c", code], check=True)


IN_THREADS = """
import threading
from concurrent.futures import ThreadPoolExecutor
from edgevit.backends import get_backend
ready = threading.Barrier(8)
def get(_):
    ready.wait()
    return get_backend("openvino").version()
with ThreadPoolExecutor(8) as pool:
    assert len(set(pool.map(get, range(8)))) == 1
"""


def test_it_is_first_imported_by_several_threads_at_once():
    subprocess.run([sys.executable, "-c", IN_THREADS], check=True)


@pytest.mark.parametrize(
    ("batch", "sizes", "expected"),
    [
        (1, (1, 1), ["1"]),
        (1, (1, 4, 1, 2), ["1", "?"]),
        (1, (3, 1), ["1", "?"]),
        (4, (4, 2), ["?"]),
        (4, (4, 1, 4, 1), ["?", "1"]),
    ],
)
def test_one_image_is_run_by_a_model_of_its_own(model, tmp_path, images, monkeypatch, batch, sizes, expected):
    backend = get_backend("openvino")
    path = backend.build(model, tmp_path)[0]
    compiled = []
    compile_model = backend._engine.Core.compile_model

    def watched(self, converted, *given):
        compiled.append(str(converted.inputs[0].get_partial_shape()[0]))
        return compile_model(self, converted, *given)

    monkeypatch.setattr(backend._engine.Core, "compile_model", watched)
    with backend.open(path, threads=1, settings={}, batch=batch) as session:
        for size in sizes:
            found = session.infer(images[:size])
            np.testing.assert_allclose(found, onnx_logits(model, images[:size]), atol=1e-5)
    assert compiled == expected


KERNELS_OF_STREAMS = """
import json, sys
from pathlib import Path
import numpy as np
from edgevit.backends import get_backend
settings = json.loads(sys.argv[2])
with get_backend("openvino").open(Path(sys.argv[1]), threads=2, settings=settings, batch=2) as session:
    integer = all(each.integer for each in session.linear_kernels())
    before = list(session._requests)
    session.infer(np.zeros((2, 3, 16, 16), np.float32))
    print(json.dumps([integer, before, len(session._requests), len(session._first)]))
"""


@pytest.mark.parametrize("settings", [{"NUM_STREAMS": "2"}, {"PERFORMANCE_HINT": "THROUGHPUT"}])
def test_kernels_of_streams_are_those_that_run(tiny_quantized, settings):
    path = Bundle.open(tiny_quantized).verify_files("int8-openvino")
    integer, before, compiled, streams = in_a_process(KERNELS_OF_STREAMS, path, json.dumps(settings))
    assert integer
    assert before == [True]
    assert compiled == (1 if streams > 1 else 2)


def test_kernels_are_told_of_what_was_compiled(tiny_quantized):
    backend, path = get_backend("openvino"), Bundle.open(tiny_quantized).verify_files("int8-openvino")
    with backend.open(path, threads=1, settings={}) as one, backend.open(path, threads=1, settings={}, batch=4) as four:
        assert one.linear_kernels() == four.linear_kernels()
        assert list(one._requests) == [True]
        assert list(four._requests) == [False]


@pytest.mark.parametrize(
    "batch", [BatchProfile(), BatchProfile(min=2, opt=2, max=2), BatchProfile(min=2, opt=3, max=4)]
)
def test_a_model_that_says_how_many_is_compiled_once(model, tmp_path, images, batch):
    backend = get_backend("openvino")
    path = backend.build(model, tmp_path, BuildOptions(batch=batch))[0]
    with backend.open(path, threads=1, settings={}) as session:
        before = session._compiled
        for size in (1, 5):
            np.testing.assert_allclose(session.infer(images[:size]), onnx_logits(model, images[:size]), atol=1e-5)
        assert session._requests_for(1) is session._requests_for(5)
        assert session._compiled is before


def onnx_logits(model, images):
    return onnx.reference.ReferenceEvaluator(str(model)).run(None, {"images": images})[0]
