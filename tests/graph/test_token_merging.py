"""One step of merging: which tokens go where, what is left of them, and where each place is afterwards."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import openvino
import pytest
import tome
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.graph import token_merging
from edgevit.graph.editing import NodeBuilder
from edgevit.graph.token_merging import TokenSets
from edgevit.quantization.float16.convert import note_types, retype

WIDTH = 6


def step(tokens, prefix, count):
    """Return a graph of one step: metric, tokens and sizes in, tokens, sizes and places out."""
    sets = TokenSets(tokens, prefix, count)
    inputs = [
        ir.Value(name=name, shape=ir.Shape(["batch", tokens, width]), type=ir.TensorType(ir.DataType.FLOAT))
        for name, width in (("metric", WIDTH), ("tokens", WIDTH), ("sizes", 1))
    ]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 20}, name="step")
    build = NodeBuilder(graph, "step")
    matching = token_merging.match(build, inputs[0], sets)
    merged, sizes = token_merging.merge(build, inputs[1], inputs[2], matching)
    places = token_merging.places_after(build, matching)
    graph.extend(build.nodes)
    kinds = ((merged, sets.left, WIDTH, "FLOAT"), (sizes, sets.left, 1, "FLOAT"), (places, tokens, 1, "INT64"))
    for value, rows, width, dtype in kinds:
        value.shape, value.type = ir.Shape(["batch", rows, width]), ir.TensorType(ir.DataType[dtype])
        graph.outputs.append(value)
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def in_onnxruntime(model, metric, tokens, sizes):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"metric": metric, "tokens": tokens, "sizes": sizes})


def in_openvino(model, metric, tokens, sizes):
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled([metric, tokens, sizes])
    return [found[output] for output in compiled.outputs]


ENGINES = {"onnxruntime": in_onnxruntime, "openvino": in_openvino}


@st.composite
def steps(draw):
    prefix = draw(st.integers(0, 5))
    patches = draw(st.integers(4, 20))
    most = min(TokenSets(prefix + patches, prefix, 0).in_a - 1, TokenSets(prefix + patches, prefix, 0).in_b)
    return prefix + patches, prefix, draw(st.integers(1, most)), draw(st.integers(1, 3))


@settings(max_examples=40)
@given(steps(), st.integers(0, 2**32 - 1))
def test_a_step_is_the_papers(sizes_of_step, seed):
    count_of_tokens, prefix, count, batch = sizes_of_step
    random = np.random.default_rng(seed)
    metric, tokens = random.normal(size=(2, batch, count_of_tokens, WIDTH)).astype(np.float32)
    sizes = random.integers(1, 5, size=(batch, count_of_tokens, 1)).astype(np.float32)
    merged, gained, places = in_onnxruntime(step(count_of_tokens, prefix, count), metric, tokens, sizes)
    assert merged.shape == (batch, count_of_tokens - count, WIDTH)
    for image in range(batch):
        groups = tome.matched(torch.from_numpy(metric[image]), prefix, count)
        assert [list(np.flatnonzero(places[image, :, 0] == place)) for place in range(len(groups))] == [
            sorted(group) for group in groups
        ]
        for place, group in enumerate(groups):
            whole = sizes[image, group].sum()
            assert gained[image, place] == whole
            mean = (tokens[image, group] * sizes[image, group]).sum(0) / whole
            np.testing.assert_allclose(merged[image, place], mean, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_keys_of_zeros_make_nothing_that_is_no_number(engine):
    random = np.random.default_rng(0)
    metric, tokens = random.normal(size=(2, 2, 9, WIDTH)).astype(np.float32)
    metric[0, 1:5] = 0  # some of A and some of B
    metric[1] = 0  # all
    sizes = np.ones((2, 9, 1), np.float32)
    merged, gained, places = ENGINES[engine](step(9, 1, 2), metric, tokens, sizes)
    assert np.isfinite(merged).all()
    np.testing.assert_allclose((merged * gained).sum(1), tokens.sum(1), atol=1e-5)
    assert gained.sum(1).tolist() == [[9], [9]]
    assert set(places.ravel().tolist()) == set(range(7))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_equally_alike_goes_into_one_token_once(engine):
    """Ties: all are alike, each of A could go into any of B, and which it is does not matter."""
    tokens = np.random.default_rng(0).normal(size=(1, 10, WIDTH)).astype(np.float32)
    same, sizes = np.ones((1, 10, WIDTH), np.float32), np.ones((1, 10, 1), np.float32)
    merged, gained, places = ENGINES[engine](step(10, 0, 3), same, tokens, sizes)
    assert gained.sum() == 10
    for place in range(7):
        members = tokens[0, places[0, :, 0] == place]
        assert len(members) == gained[0, place, 0]
        np.testing.assert_allclose(merged[0, place], members.mean(0), atol=1e-5)


def test_in_float16_keys_and_sums_may_be_larger_than_it_holds():
    random = np.random.default_rng(0)
    metric = (300 * random.normal(size=(1, 12, WIDTH))).astype(np.float16)  # squares are 90,000
    tokens = (300 * random.normal(size=(1, 12, WIDTH))).astype(np.float16)
    sizes = np.full((1, 12, 1), 500, np.float16)  # of tokens that are 150,000 together
    given = [each.astype(np.float32) for each in (metric, tokens, sizes)]
    expected = in_onnxruntime(step(12, 1, 4), *given)
    model = ir.from_proto(onnx.load_from_string(step(12, 1, 4)))
    note_types(model)
    retype(model.graph, set())
    found = in_onnxruntime(ir.to_proto(model).SerializeToString(), *given)
    np.testing.assert_array_equal(found[2], expected[2])
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=5e-3, atol=0.5)
