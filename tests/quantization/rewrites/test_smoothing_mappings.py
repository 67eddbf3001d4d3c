"""Exact rewrites: whatever is shifted and scaled, the model gives the same."""

import msgspec
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir.passes import common

from edgevit.graph.linears import find_linears, load_graph
from edgevit.models.spec import ModelSpec, RotaryPositions
from edgevit.quantization.rewrites.activation_shift import shift_input
from edgevit.quantization.rewrites.smoothing_mappings import (
    GatedProducer,
    NormProducer,
    ValueProducer,
    find_smoothing_mappings,
)

SPEC = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=24, depth=2, heads=2, classes=5)
NORMED = (
    "g (float[n, 3, 4] images) => (float[n, 3, 4] logits)"
    "{ x = LayerNormalization(images, weight, bias) [a] p = MatMul(x, w) y = Add(p, b)"
    "  [b] q = MatMul(x, w) z = Add(q, b) logits = Add(y, z) }"
)
RNG = np.random.default_rng(0)
CONSTANTS = {
    "weight": RNG.normal(size=4).astype(np.float32),
    "bias": RNG.normal(size=4).astype(np.float32),
    "w": RNG.normal(size=(4, 4)).astype(np.float32),
    "b": RNG.normal(size=4).astype(np.float32),
}


def run(model, images):
    if isinstance(model, ir.Model):
        model = ir.serde.serialize_model(model).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def test_every_layer_of_a_vit_but_fc2_can_be_shifted_and_scaled(quantized):
    mappings = find_smoothing_mappings(load_graph(quantized.path).graph)
    consumers = [(type(mapping.producer), *(consumer.name for consumer in mapping.consumers)) for mapping in mappings]
    expected = [(NormProducer, "head")]
    for block in (0, 1):
        expected += [(NormProducer, f"blocks.{block}.attn.qkv"), (NormProducer, f"blocks.{block}.mlp.fc1")]
        expected += [(ValueProducer, f"blocks.{block}.attn.proj")]
    assert sorted(consumers, key=str) == sorted(expected, key=str)
    assert all(mapping.shiftable for mapping in mappings)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_vit_gives_the_same_logits_whatever_is_moved(quantized, seed):
    random = np.random.default_rng(seed)
    model = load_graph(quantized.path)
    mappings = find_smoothing_mappings(model.graph)
    for index in random.permutation(len(mappings)):
        width = mappings[index].consumers[0].weight.shape[0]
        scale, shift = np.exp(random.normal(size=width)), random.normal(size=width)
        mappings[index].smooth(model.graph, scale.astype(np.float32), shift.astype(np.float32))
    before, after = run(quantized.path, quantized.images), run(model, quantized.images)
    np.testing.assert_allclose(after, before, atol=2e-4 * np.abs(before).max())


def test_what_is_moved_reaches_the_layers_input(write_graph):
    model = load_graph(write_graph(NORMED, CONSTANTS))
    (mapping,) = find_smoothing_mappings(model.graph)
    assert [consumer.name for consumer in mapping.consumers] == ["a", "b"]
    scale, shift = np.array([1, 2, 4, 8], dtype=np.float32), np.array([0, 1, 2, 3], dtype=np.float32)
    images = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    expected = run(model, images)
    inputs = []
    for moved in (False, True):
        if moved:
            mapping.smooth(model.graph, scale, shift)
        copy = ir.serde.deserialize_model(ir.serde.serialize_model(model))
        copy.graph.outputs[0] = find_linears(copy.graph)[0].input
        inputs.append(run(copy, images))
    np.testing.assert_allclose(inputs[1], (inputs[0] - shift) / scale, atol=1e-5)
    np.testing.assert_allclose(run(model, images), expected, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        # the norm's output is an output of the model, goes into the residual stream, or meets other tokens
        "g (float[n, 3, 4] images) => (float[n, 3, 4] y, float[n, 3, 4] x)"
        "{ x = LayerNormalization(images, weight, bias) p = MatMul(x, w) y = Add(p, b) }",
        "g (float[n, 3, 4] images) => (float[n, 3, 4] y)"
        "{ x = LayerNormalization(images, weight, bias) p = MatMul(x, w) q = Add(p, b) y = Add(q, x) }",
        "g (float[n, 3, 4] images) => (float[n, 3, 4] y)"
        "{ x = LayerNormalization(images, weight, bias) t = Relu(x) p = MatMul(t, w) y = Add(p, b) }",
    ],
)
def test_a_norm_that_others_read_is_left_alone(write_graph, text):
    assert find_smoothing_mappings(load_graph(write_graph(text, CONSTANTS)).graph) == []


def test_layers_without_a_bias_are_scaled_but_not_shifted(write_graph):
    text = (
        "g (float[n, 3, 4] images) => (float[n, 3, 4] logits)"
        "{ x = LayerNormalization(images, weight) [a] logits = MatMul(x, w) }"
    )
    model = load_graph(write_graph(text, {"weight": CONSTANTS["weight"], "w": CONSTANTS["w"]}))
    (mapping,) = find_smoothing_mappings(model.graph)
    assert not mapping.shiftable
    images = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    before = run(model, images)
    mapping.smooth(model.graph, np.array([1, 2, 4, 8], dtype=np.float32), np.zeros(4, dtype=np.float32))
    np.testing.assert_allclose(run(model, images), before, atol=1e-5)


@pytest.mark.parametrize("attributes", ["<transB = 1, alpha = 2.0, beta = 0.5>", "<beta = 3.0>", ""])
def test_gemm_in_any_form_is_moved(write_graph, attributes):
    text = (
        "g (float[n, 4] images) => (float[n, 4] logits)"
        "{ x = LayerNormalization(images, weight, bias) [a] logits = Gemm" + attributes + "(x, w, b) }"
    )
    model = load_graph(write_graph(text, CONSTANTS))
    (mapping,) = find_smoothing_mappings(model.graph)
    images = RNG.normal(size=(2, 4)).astype(np.float32)
    before = run(model, images)
    scale, shift = np.array([1, 2, 4, 8], dtype=np.float32), np.array([0, 1, 2, 3], dtype=np.float32)
    mapping.smooth(model.graph, scale, shift)
    np.testing.assert_allclose(run(model, images), before, atol=1e-4)


def test_the_class_token_is_taken_for_a_token_and_a_channel_for_none(write_graph):
    text = (
        "g (float[n, 3, 4] images) => (float[n, m] logits)"
        "{ x = LayerNormalization(images, weight, bias) t = Gather<axis = AXIS>(x, i)"
        "  p = MatMul(t, w) logits = Add(p, b) }"
    )
    found = []
    for axis in ("1", "2"):
        constants = {**CONSTANTS, "i": np.array(0)}
        if axis == "2":
            constants |= {"w": CONSTANTS["w"][:3]}
        model = load_graph(write_graph(text.replace("AXIS", axis), constants))
        common.ShapeInferencePass()(model)
        found.append(find_smoothing_mappings(model.graph))
    assert [len(mappings) for mappings in found] == [1, 0]


@pytest.mark.parametrize("gate", [0, 1])
def test_what_a_gate_multiplies_is_scaled(write_graph, gate):
    """The other half goes through the activation, which no constant can scale."""
    halves = ("gate", "values") if gate == 0 else ("values", "gate")
    text = (
        "g (float[n, 3, 4] images) => (float[n, 3, 4] logits)"
        "{ p = MatMul(images, w1) y = Add(p, b1)"
        f"  {halves[0]}, {halves[1]} = Split<axis = -1, num_outputs = 2>(y)"
        "  s = Sigmoid(gate) open = Mul(gate, s) x = Mul(open, values) [b] q = MatMul(x, w) logits = Add(q, b) }"
    )
    random = np.random.default_rng(1)
    more = {"w1": random.normal(size=(4, 8)).astype(np.float32), "b1": random.normal(size=8).astype(np.float32)}
    model = load_graph(write_graph(text, CONSTANTS | more))
    common.ShapeInferencePass()(model)
    (mapping,) = find_smoothing_mappings(model.graph)
    assert isinstance(mapping.producer, GatedProducer)
    assert not mapping.shiftable
    images = random.normal(size=(2, 3, 4)).astype(np.float32)
    before = run(model, images)
    weight = mapping.consumers[0].weight
    mapping.smooth(model.graph, np.array([1, 2, 4, 8], dtype=np.float32), np.zeros(4, dtype=np.float32))
    np.testing.assert_allclose(run(model, images), before, atol=1e-5)
    after = find_linears(model.graph)[-1].weight
    np.testing.assert_allclose(after, weight * np.array([[1], [2], [4], [8]]), rtol=1e-6)


@pytest.mark.parametrize(
    "parts",
    [
        {"rotary": RotaryPositions(coordinates="numbers", own=True), "query_key_norm": True},
        {"relative_positions": True},
    ],
    ids=["turned", "bias"],
)
def test_values_are_scaled_whatever_softmax_looks_at(exported_vit, parts):
    spec = msgspec.structs.replace(SPEC, **parts)
    model = load_graph(exported_vit(spec))
    found = find_smoothing_mappings(model.graph)
    values = [one.consumers[0].name for one in found if isinstance(one.producer, ValueProducer)]
    assert values == [f"blocks.{block}.attn.proj" for block in range(spec.depth)]


@pytest.mark.parametrize("shift", [0.0, 1.5, -3.0])
def test_a_centred_input_gives_the_same(write_graph, shift):
    text = "g (float[n, 4] images) => (float[n, 4] logits) { x = Gelu(images) [a] p = MatMul(x, w) logits = Add(p, b) }"
    model = load_graph(write_graph(text, {"w": CONSTANTS["w"], "b": CONSTANTS["b"]}))
    images = RNG.normal(size=(2, 4)).astype(np.float32)
    before = run(model, images)
    (layer,) = find_linears(model.graph)
    shift_input(model.graph, layer, shift)
    np.testing.assert_allclose(run(model, images), before, atol=1e-5)
    (moved,) = find_linears(model.graph)
    assert moved.name == "a"
    assert moved.input.producer().op_type == "Add"
