"""A patch embedding that is not quantized is float32, even where the model is compiled for BF16."""

import numpy as np
import pytest
from onnx_files import calibrate, make_plan, read
from tiny import PREPROCESS

from edgevit.backends import get_backend
from edgevit.backends.base import BuildOptions
from edgevit.backends.openvino_float32 import keep_float32
from edgevit.bundle.store import Bundle
from edgevit.quantization.emit import openvino as dialect

MARKS = ("precise", "DisablePrecisionConversion")  # what older and newer releases call it once it is read


@pytest.fixture(scope="module")
def quantized_onnx(tiny_quantized, tmp_path_factory):
    """Return an ONNX file with its Linear layers quantized, and its patch embedding still a convolution."""
    bundle, path = Bundle.open(tiny_quantized), tmp_path_factory.mktemp("onnx") / "int8.onnx"
    model, images = bundle.verify_files("float32"), bundle.golden().images
    pixels = np.stack([PREPROCESS.geometry(image) for image in images])
    table = calibrate(model, [PREPROCESS.normalize(pixels)], total=1)
    dialect.emit(read(model), make_plan(model, table), path, 8)
    return path


def engine():
    return get_backend("openvino")._engine


def marked(path):
    """Return the operators of an IR that OpenVINO itself reads as marked, by their types."""
    model = engine().Core().read_model(path)
    return {
        node.get_friendly_name(): node.get_type_name()
        for node in model.get_ordered_ops()
        if any(key.startswith(MARKS) for key in node.get_rt_info())
    }


def test_the_patch_embedding_is_marked_and_nothing_else(quantized_onnx, tmp_path):
    found = marked(get_backend("openvino").build(quantized_onnx, tmp_path)[0])
    assert list(found.values()) == ["Convolution"]


def test_a_quantized_patch_embedding_is_not(tiny_quantized):
    assert not marked(Bundle.open(tiny_quantized).verify_files("int8-openvino"))


def test_it_is_float32_where_the_model_is_compiled_for_bf16(quantized_onnx, tmp_path):
    core = engine().Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no BF16")
    path = get_backend("openvino").build(quantized_onnx, tmp_path)[0]
    with get_backend("openvino").open(path, threads=1, settings={"INFERENCE_PRECISION_HINT": "bf16"}) as session:
        nodes = session._compiled.get_runtime_model().get_ordered_ops()
    precisions = {
        kind: {str(node.get_rt_info()["runtimePrecision"].astype(str)) for node in nodes if kind_of(node) == kind}
        for kind in ("Convolution", "MVN")
    }
    assert precisions == {"Convolution": {"f32"}, "MVN": {"bf16"}}


def kind_of(node):
    return str(node.get_rt_info()["layerType"].astype(str))


def test_a_model_without_quantized_layers_has_no_marks(tiny_quantized, tmp_path):
    source = Bundle.open(tiny_quantized).verify_files("float32")
    path = get_backend("openvino").build(source, tmp_path)[0]
    before = path.read_bytes()
    assert keep_float32(path) == 0
    assert path.read_bytes() == before
    assert not marked(path)


def test_other_devices_choose_for_themselves(quantized_onnx, tmp_path):
    path = get_backend("openvino").build(quantized_onnx, tmp_path, BuildOptions(settings={"DEVICE": "GPU"}))[0]
    assert not marked(path)
