import numpy as np
import onnxruntime
import pytest
from onnx_files import emit, optimize_files

from edgevit.backends import get_backend
from edgevit.graph.linears import find_linears, load_graph
from edgevit.graph.saving import save
from edgevit.quantization.calibration.calibration_table import ChannelStatistics
from edgevit.quantization.kernel_check import check_kernels
from edgevit.quantization.ptq import CalibrationImages
from edgevit.quantization.rewrites.channel_equalization import follows_activation
from edgevit.quantization.rewrites.per_token_scale import (
    LEAST,
    add_per_token_scale,
    has_per_token_scale,
    least_divisor,
)
from edgevit.recipes import Rewrites
from edgevit.statistics import sqnr_db

FC2 = [f"blocks.{block}.mlp.fc2" for block in (0, 1)]


def run(path, images):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


def test_scaling_tokens_changes_no_logits_and_no_weight(quantized, tmp_path):
    model = load_graph(quantized.path)
    for layer in find_linears(model.graph):
        if follows_activation(layer.input):
            add_per_token_scale(model.graph, layer)
    save(model, tmp_path / "scaled.onnx")
    after = {layer.name: layer for layer in find_linears(load_graph(tmp_path / "scaled.onnx").graph)}
    before = {layer.name: layer for layer in find_linears(load_graph(quantized.path).graph)}
    assert [name for name, layer in after.items() if has_per_token_scale(layer)] == FC2
    assert all(np.array_equal(after[name].weight, before[name].weight) for name in before)
    np.testing.assert_allclose(
        run(tmp_path / "scaled.onnx", quantized.images), run(quantized.path, quantized.images), atol=1e-5
    )


TOKENS = np.array([[0, 0, 0], [-3, -2, -1], [0.5, 0.25, -0.1], [7, 2, -0.2], [1e30, 1e20, 1e9], [1e-30, 0, -1e-30]])


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("bias", [True, False])
def test_each_token_ends_at_one_and_the_product_is_what_it_was(write_graph, tmp_path, opset, bias):
    rng = np.random.default_rng(opset)
    weights = {"w": rng.normal(size=(3, 2)).astype(np.float32), "b": np.float32([3, -4])}
    addition = "p = MatMul(x, w) logits = Add(p, b)" if bias else "logits = MatMul(x, w)"
    path = write_graph(
        f"g (float[n, t, 3] images) => (float[n, t, 2] logits) {{ x = Relu(images) [fc] {addition} }}",
        weights if bias else {"w": weights["w"]},
        opset=opset,
    )
    model = load_graph(path)
    (layer,) = find_linears(model.graph)
    add_per_token_scale(model.graph, layer)
    scaled = layer.input
    model.graph.outputs.append(scaled)
    save(model, tmp_path / "scaled.onnx")
    tokens = TOKENS[None].astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "scaled.onnx", providers=["CPUExecutionProvider"])
    logits, read = session.run(None, {"images": tokens})
    np.testing.assert_allclose(logits, run(path, tokens), rtol=1e-5)
    relu = np.maximum(tokens, 0)
    assert read.max() <= 1 + 1e-6
    np.testing.assert_allclose(read, relu / np.maximum(relu.max(axis=-1, keepdims=True), LEAST), rtol=1e-6)


@pytest.mark.parametrize("dialect", ["onnxruntime", "openvino"])
def test_scaled_tokens_are_nearer_and_run_in_integers(quantized, tmp_path, dialect):
    images = CalibrationImages(lambda: iter([quantized.images]), 1)
    rewrites = Rewrites(per_token_scale=True)
    one = optimize_files(quantized.path, images, {"asymmetric": tmp_path / "model.onnx"}, rewrites=rewrites)[1][
        "asymmetric"
    ]
    emit(one.model, one.plan, dialect, tmp_path / "int8.onnx")
    exact = run(quantized.path, quantized.images)
    error = ((run(tmp_path / "int8.onnx", quantized.images) - exact) ** 2).mean()
    assert error < ((run(quantized.int8[dialect], quantized.images) - exact) ** 2).mean()
    with get_backend(dialect).open(tmp_path / "int8.onnx", threads=1, settings={}) as session:
        assert not check_kernels(session, one.plan.integer_layers()).float_linears


def test_layers_whose_tokens_are_scaled_have_no_second_product(quantized, tmp_path):
    images = CalibrationImages(lambda: iter([quantized.images]), 1)
    rewrites = Rewrites(per_token_scale=True, channel_equalization=0.125, residual_layers=0.1)
    places = {scheme: tmp_path / f"{scheme}.onnx" for scheme in ("asymmetric", "symmetric")}
    optimized = optimize_files(quantized.path, images, places, rewrites=rewrites)[1]
    rests = {
        scheme: [linear.name for linear in one.plan.linears if linear.layer is not None]
        for scheme, one in optimized.items()
    }
    assert rests == {
        "asymmetric": ["blocks.0.attn.proj.residual"],
        "symmetric": ["blocks.0.attn.proj.residual", "blocks.0.mlp.fc2.residual"],
    }
    signed = find_linears(load_graph(places["symmetric"]).graph)
    assert not any(map(has_per_token_scale, signed))


@pytest.mark.parametrize(("fc2", "scaled"), [("z = Gemm(y, w, b)", False), ("p = MatMul(y, w) z = Add(p, b)", True)])
def test_a_gemm_whose_bias_would_be_scaled_too_is_left_alone(write_graph, tmp_path, fc2, scaled):
    rng = np.random.default_rng(0)
    path = write_graph(
        "g (float[n, 1, 8, 8] images) => (float[n, 8] logits) { r = Reshape(images, tokens) [fc1] h = MatMul(r, u) "
        f"y = Relu(h) [fc2] {fc2} logits = Reshape(z, whole) }}",
        {
            "tokens": np.array([-1, 16]),
            "whole": np.array([-1, 8]),
            "u": rng.normal(size=(16, 32)).astype(np.float32),
            "w": rng.normal(size=(32, 2)).astype(np.float32),
            "b": np.float32([30, -40]),
        },
    )
    shown = rng.normal(size=(8, 1, 8, 8)).astype(np.float32)
    images = CalibrationImages(lambda: iter([shown]), 1)
    optimize_files(path, images, {"asymmetric": tmp_path / "model.onnx"}, rewrites=Rewrites(per_token_scale=True))
    layers = {layer.name: layer for layer in find_linears(load_graph(tmp_path / "model.onnx").graph)}
    assert has_per_token_scale(layers["fc2"]) == scaled


@pytest.mark.parametrize(
    ("low", "high", "least"),
    [(-0.17, 6, 1), (0, 1, 1), (-0.1, 0.5, 0.5), (-0.17, 0.02, 0.17), (-2e-4, 1e-4, 2e-4), (0, 0, 1), (-1e-40, 0, 1)],
)
def test_tokens_are_divided_by_no_more_than_was_seen(low, high, least):
    channels = ChannelStatistics(*(np.array([value / 2, value]) for value in (low, high, 0.0, 0.0)))
    assert least_divisor(channels) == least


@pytest.mark.parametrize("size", [1.0, 0.1, 1e-2, 1e-4])
def test_small_values_use_all_levels(write_graph, tmp_path, size):
    rng = np.random.default_rng(0)
    path = write_graph(
        "g (float[n, 1, 8, 8] images) => (float[n, 4, 2] logits) { r = Reshape(images, tokens) [fc1] h = MatMul(r, u) "
        "y = Gelu(h) [fc2] p = MatMul(y, w) logits = Add(p, b) }",
        {
            "tokens": np.array([-1, 4, 16]),
            "u": (size * rng.normal(size=(16, 32))).astype(np.float32),
            "w": rng.normal(size=(32, 2)).astype(np.float32),
            "b": np.float32([0, 0]),
        },
        opset=20,
    )
    shown, unseen = rng.normal(size=(2, 32, 1, 8, 8)).astype(np.float32)
    images = CalibrationImages(lambda: iter([shown]), 1)
    place = {"asymmetric": tmp_path / "model.onnx"}
    one = optimize_files(path, images, place, rewrites=Rewrites(per_token_scale=True))[1]["asymmetric"]
    emit(one.model, one.plan, "onnxruntime", tmp_path / "int8.onnx")
    assert has_per_token_scale(find_linears(load_graph(one.model).graph)[-1])
    assert sqnr_db(run(path, unseen), run(tmp_path / "int8.onnx", unseen)) > 33
