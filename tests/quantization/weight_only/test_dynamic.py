"""Dynamic INT8 beside onnxruntime's own, and the check that OpenVINO does it at all."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from onnx_files import emit_dynamic, emit_weights_int8
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgevit.backends import get_backend
from edgevit.backends.openvino_settings import GROUP_SIZE
from edgevit.errors import BundleError, VerificationError
from edgevit.quantization.arithmetic import quantize_array, weight_scales
from edgevit.quantization.kernel_check import check_kernels
from edgevit.quantization.weight_only.dynamic import check_dynamic
from edgevit.targets import load_target


def run(path, images):
    with get_backend("onnxruntime").open(path, threads=1, settings={}) as session:
        return session.infer(images)


@pytest.fixture(scope="module")
def dynamic(quantized, tmp_path_factory):
    path = tmp_path_factory.mktemp("dynamic") / "model.onnx"
    assert emit_dynamic(quantized.path, path) == tuple(quantized.layers)
    return path


def test_every_layer_runs_in_integers(quantized, dynamic):
    with get_backend("onnxruntime").open(dynamic, threads=1, settings={}) as session:
        kernels = check_kernels(session, quantized.layers)
        assert {kernel.weight for kernel in session.linear_kernels()} == {"int8"}
    assert (kernels.linears, kernels.integer_linears, kernels.float_linears) == (9, 9, ())


@pytest.mark.parametrize("batch", [1, 12])
def test_logits_are_those_of_onnxruntimes_own(quantized, dynamic, batch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it leaves a file
    model = onnx.load(quantized.path)
    del model.graph.value_info[:]  # else it fails: onnxruntime#25890
    theirs = tmp_path / "theirs.onnx"
    quantize_dynamic(
        model, theirs, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"],
        extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip
    images = quantized.images[:batch]
    exact, expected, found = run(quantized.path, images), run(theirs, images), run(dynamic, images)
    error = np.abs(expected - exact).mean()
    assert error > 5e-4  # quantization does something
    # A value that lies on the edge between two integers may be rounded either way; all else must be alike.
    assert np.abs(found - expected).mean() < 0.1 * error


def test_one_by_one_an_image_does_not_depend_on_the_others(quantized, dynamic):
    images = quantized.images
    loud = np.concatenate([images[:1], 10 * images[1:2]])
    settings = load_target("x86-onnxruntime").settings_for("int8-dynamic")
    with get_backend("onnxruntime").open(dynamic, threads=1, settings=settings) as session:
        alone, beside = session.infer(images[:1]), session.infer(loud)
        assert session.infer(images).shape == (len(images), 5)
    np.testing.assert_array_equal(alone[0], beside[0])
    assert np.abs(run(dynamic, loud)[0] - alone[0]).max() > 0  # together it does


def test_images_go_together_or_one_by_one(dynamic):
    with pytest.raises(BundleError, match="setting images cannot be 'backwards'"):
        get_backend("onnxruntime").open(dynamic, threads=1, settings={"images": "backwards"})


def test_the_file_is_well_formed_and_small(quantized, dynamic):
    onnx.checker.check_model(str(dynamic))
    graph, before = onnx.load(dynamic).graph, onnx.load(quantized.path).graph
    assert graph.input == before.input
    assert graph.output == before.output
    assert sum(node.op_type == "DynamicQuantizeMatMul" for node in graph.node) == len(quantized.layers)
    assert f"{quantized.layers[0]}.weight" not in {constant.name for constant in graph.initializer}


WEIGHT = np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(0.01, 100))
def test_one_layer_is_dynamic_quantize_linear_and_an_integer_product(one_layer, seed, offset, spread):
    images = np.random.default_rng(seed).normal(offset, spread, (5, 8)).astype(np.float32)
    quantized, scale, zero = one_layer.reference.run(None, {"x": images})
    weights = quantize_array(WEIGHT, weight_scales(WEIGHT), np.int8(0)).astype(np.int32)
    product = (quantized.astype(np.int32) - np.int32(zero)) @ weights
    expected = product * (scale * weight_scales(WEIGHT)) + WEIGHT[0]
    # One value may be rounded to a neighbour: onnxruntime takes its range in float32 in another order.
    np.testing.assert_allclose(one_layer.session.infer(images), expected, atol=1.01 * scale * np.abs(WEIGHT).max())


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory):
    class Layer:
        reference = ReferenceEvaluator(
            onnx.parser.parse_model(
                '<ir_version: 8, opset_import: ["": 20]> '
                "g (float[n, 8] x) => (uint8[n, 8] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(x) }"
            )
        )

    folder = tmp_path_factory.mktemp("layer")
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 20]> '
        "g (float[n, 8] images) => (float[n, 6] y) { [fc] y = Gemm(images, w, b) }"
    )
    constants = {"w": WEIGHT, "b": WEIGHT[0]}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.save(model, folder / "float.onnx")
    emit_dynamic(folder / "float.onnx", folder / "int8.onnx")
    with get_backend("onnxruntime").open(folder / "int8.onnx", threads=1, settings={}) as session:
        Layer.session = session
        yield Layer


def test_openvino_leaves_the_mark_of_rounding_or_is_refused(quantized, tmp_path):
    backend = get_backend("openvino")
    emit_weights_int8(quantized.path, tmp_path / "int8.onnx")
    model = backend.build(tmp_path / "int8.onnx", tmp_path / "ir")[0]
    with pytest.raises(VerificationError, match="does not quantize activations") as caught:
        check_dynamic(backend, model, {GROUP_SIZE: "0"}, quantized.images)
    assert "int8-weights" in caught.value.remedy
    try:
        check_dynamic(backend, model, {GROUP_SIZE: "64"}, quantized.images)
    except VerificationError:
        pytest.skip("OpenVINO does not quantize dynamically on this processor")
