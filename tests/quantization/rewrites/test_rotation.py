import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_ir.passes import common

from edgevit.graph.editing import add_constant
from edgevit.graph.linears import find_linears, load_graph
from edgevit.models.spec import ModelSpec
from edgevit.quantization.rewrites.rotation import rotate_stream, rotation

IMAGES = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)


def run(model, images=IMAGES):
    content = ir.serde.serialize_model(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def constants(model):
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


@given(st.integers(1, 300))
def test_a_rotation_keeps_lengths_and_the_mean(width):
    matrix = rotation(width)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(width), atol=1e-12)
    np.testing.assert_allclose(matrix @ np.ones(width), 1, atol=1e-12)
    np.testing.assert_array_equal(matrix, rotation(width))


def test_a_rotation_mixes_all_channels():
    matrix = np.abs(rotation(192))
    assert matrix.max() < 0.4  # of a vector's length; a permutation would have 1
    assert (matrix > 1e-3).mean() > 0.95


@pytest.mark.parametrize("options", [{}, {"pooling": "mean"}, {"pooling": "mean", "norm_after_pooling": True}])
def test_the_stream_turns_and_the_logits_stay(exported_vit, options):
    spec = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, heads=2, classes=5, **options)
    model = load_graph(exported_vit(spec))
    before, logits = constants(model), run(model)
    assert rotate_stream(model.graph)
    np.testing.assert_allclose(run(model), logits, atol=1e-5 * np.abs(logits).max())
    after = constants(model)
    matrix = rotation(32)
    np.testing.assert_allclose(after["pos_embed"], before["pos_embed"] @ matrix, atol=1e-5)
    for block in (0, 1):
        written = before[f"blocks.{block}.mlp.fc2.weight"] @ matrix
        np.testing.assert_allclose(after[f"blocks.{block}.mlp.fc2.weight"], written, atol=1e-5)
    norms = [node for node in model.graph if node.op_type == "LayerNormalization"]
    assert len(norms) == 5
    for node in norms:
        assert (ir.convenience.get_const_tensor(node.inputs[1]).numpy() == 1).all()
        assert (ir.convenience.get_const_tensor(node.inputs[2]).numpy() == 0).all()


def test_a_norm_may_silence_channels(quantized):
    model = load_graph(quantized.path)
    weight = next(node for node in model.graph if node.op_type == "LayerNormalization").inputs[1]
    silent = weight.const_value.numpy().copy()
    silent[:3] = 0
    weight.const_value = ir.tensor(silent, name=weight.name)
    logits = run(model, quantized.images)
    assert rotate_stream(model.graph)
    np.testing.assert_allclose(run(model, quantized.images), logits, atol=1e-5 * np.abs(logits).max())


def test_an_outlier_channel_is_gone(quantized):
    model = load_graph(quantized.path)
    (position,) = (value for name, value in model.graph.initializers.items() if name == "pos_embed")
    wide = position.const_value.numpy().copy()
    wide[..., 7] += np.linspace(-60, 60, wide.shape[1])
    position.const_value = ir.tensor(wide, name=position.name)

    def peak(graph):  # of one channel's deviation over the mean one's, in front of the first Linear layer
        graph.outputs.append(find_linears(graph)[0].input)
        content = ir.serde.serialize_model(model).SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        deviations = session.run(None, {"images": quantized.images})[-1].std(axis=(0, 1))
        graph.outputs.pop()
        return deviations.max() / deviations.mean()

    norm = next(node for node in model.graph if node.op_type == "LayerNormalization")
    norm.inputs[1].const_value = ir.tensor(np.ones(32, dtype=np.float32), name=norm.inputs[1].name)
    before = peak(model.graph)
    assert rotate_stream(model.graph)
    assert peak(model.graph) < before / 2


def refused(model):
    before = constants(model)
    assert not rotate_stream(model.graph)
    after = constants(model)
    assert list(after) == list(before)
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_a_stream_that_is_an_output_is_left_alone(quantized):
    model = load_graph(quantized.path)
    model.graph.outputs.append(next(node for node in model.graph if node.op_type == "LayerNormalization").inputs[0])
    refused(model)


def test_a_stream_that_something_else_reads_is_left_alone(quantized):
    model = load_graph(quantized.path)
    norm = next(node for node in model.graph if node.op_type == "LayerNormalization")
    other = ir.node("Relu", [norm.inputs[0]], name="other")
    model.graph.insert_before(norm, other)
    model.graph.outputs.append(other.outputs[0])
    refused(model)


def test_a_stream_that_is_scaled_by_channel_is_left_alone(quantized):
    model = load_graph(quantized.path)
    layer = find_linears(model.graph)[1]
    scaled = ir.node("Mul", [layer.output, model.graph.initializers["blocks.0.norm1.weight"]], name="scale")
    scaled.outputs[0].shape = layer.output.shape
    layer.output.replace_all_uses_with(scaled.outputs[0])
    scaled.replace_input_with(0, layer.output)
    model.graph.insert_after(layer.addition, scaled)
    refused(model)


@pytest.mark.parametrize("shifted", [True, False])
def test_a_layer_without_a_bias_cannot_take_up_the_norms(quantized, shifted):
    model = load_graph(quantized.path)
    layer = find_linears(model.graph)[0]
    layer.addition.outputs[0].replace_all_uses_with(layer.matmul.outputs[0])
    model.graph.remove(layer.addition, safe=True)
    norm = layer.input.producer()
    if shifted:
        refused(model)
        return
    norm.inputs[2].const_value = ir.tensor(np.zeros(32, dtype=np.float32), name=norm.inputs[2].name)
    logits = run(model, quantized.images)
    assert rotate_stream(model.graph)
    np.testing.assert_allclose(run(model, quantized.images), logits, atol=1e-5 * np.abs(logits).max())


def test_a_layer_that_reads_two_tokens_side_by_side_is_left_alone(quantized):
    model = load_graph(quantized.path)
    stream = next(node for node in model.graph if node.op_type == "LayerNormalization").inputs[0]
    token = ir.node("Gather", [stream, add_constant(model.graph, "which", np.array(0))], attributes={"axis": 1})
    pair = ir.node("Concat", [token.outputs[0]] * 2, attributes={"axis": 1})
    weight = add_constant(model.graph, "weight", np.ones((64, 5), dtype=np.float32))
    product = ir.node("MatMul", [pair.outputs[0], weight], name="other")
    model.graph.extend([token, pair, product])
    model.graph.outputs.append(product.outputs[0])
    model.graph.sort()
    common.ShapeInferencePass()(model)
    refused(model)


def test_a_graph_without_norms_is_left_alone(write_graph):
    path = write_graph(
        "mlp (float[N, 4] x) => (float[N, 3] y) { y = MatMul(x, w) }", {"w": np.eye(4, 3, dtype=np.float32)}
    )
    refused(load_graph(path))


@pytest.mark.parametrize("name", ["old", "new"])
def test_files_of_others_turn_and_keep_their_logits(external_vits, name):
    model = load_graph(external_vits[name])
    common.ShapeInferencePass()(model)
    images = np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)
    logits = run(model, images)
    assert rotate_stream(model.graph)
    np.testing.assert_allclose(run(model, images), logits, atol=1e-4 * np.abs(logits).max())
