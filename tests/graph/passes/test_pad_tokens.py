"""Rows that are added to the tokens change nothing but their number: a padded graph gives what it gave."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_files import read
from onnx_ir.passes import common

from edgevit.graph.editing import add_constant
from edgevit.graph.linears import find_linears
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.passes.pad_tokens import PadTokens, padding_of
from edgevit.graph.passes.prune_tokens import PruneToClassToken
from edgevit.graph.saving import save, serialize
from edgevit.models.spec import ModelSpec

IMAGES = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
SIZES = {"image_size": (16, 16), "patch_size": (4, 4), "width": 32, "heads": 2, "depth": 3, "classes": 5}

SPECS = {
    "class-token": ModelSpec(**SIZES),
    "mean": ModelSpec(**SIZES, pooling="mean"),
    "attention": ModelSpec(**SIZES, pooling="attention"),
    "registers": ModelSpec(**SIZES, register_tokens=2),
}


def run(model, images=IMAGES):
    return onnxruntime.InferenceSession(serialize(model)).run(None, {"images": images})


def tokens_in_attention(model):
    """Return how many keys the attentions of ``model`` have."""
    shapes = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True).graph.value_info
    by_name = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in shapes}
    return [by_name[node.inputs[0].name][-1] for node in model.graph if node.op_type == "Softmax"]


@pytest.mark.parametrize("passes", [[], [PruneToClassToken()]], ids=["whole", "pruned"])
@pytest.mark.parametrize("name", SPECS)
def test_answers_stay(exported_vit, name, passes):
    model = read(exported_vit(SPECS[name]))
    expected = run(model)
    for each in passes:
        each(model)
    common.ShapeInferencePass()(model)
    tokens = 16 + SPECS[name].class_token + SPECS[name].register_tokens
    assert padding_of(model.graph) == (tokens, -tokens % 8)
    assert PadTokens()(model).modified == bool(tokens % 8)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert tokens_in_attention(model)[:3] == [-(-tokens // 8) * 8] * 3
    for start, end in ((0, 1), (0, 3)):
        (found,) = run(model, IMAGES[start:end])
        np.testing.assert_allclose(found, expected[0][start:end], atol=2e-5)


def test_it_is_done_once(exported_vit):
    model = read(exported_vit(SPECS["class-token"]))
    common.ShapeInferencePass()(model)
    assert PadTokens()(model).modified
    assert not PadTokens()(model).modified
    assert padding_of(model.graph)[1] == 0


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=st.tuples(st.integers(0, 7), st.integers(0, 4), st.integers(0, 2)), pooled=st.booleans())
def test_tokens_are_padded_up_to_where_they_are_merged(exported_vit, schedule, pooled):
    model = read(exported_vit(SPECS["class-token" if pooled else "mean"]))
    common.ShapeInferencePass()(model)
    if any(schedule):
        MergeTokens(schedule)(model)
    expected, before = run(model), tokens_in_attention(model)
    first = next((block for block, count in enumerate(schedule) if count), 2)
    assert PadTokens()(model).modified
    assert tokens_in_attention(model) == [24] * (first + 1) + before[first + 1 :]
    np.testing.assert_allclose(run(model)[0], expected[0], atol=2e-5)


def test_outputs_of_tokens_keep_their_shape(exported_vit):
    model = read(exported_vit(SPECS["class-token"]))
    common.ShapeInferencePass()(model)
    norms = [node for node in model.graph if node.op_type == "LayerNormalization"]
    sums = [
        node for node in model.graph if node.op_type == "Add" and node.outputs[0].shape == norms[-1].outputs[0].shape
    ]
    start = norms[0].inputs[0]
    model.graph.outputs.extend([norms[-1].outputs[0], sums[-1].outputs[0], start])
    expected = run(model)
    names = [value.name for value in model.graph.outputs]
    assert PadTokens()(model).modified
    assert [value.name for value in model.graph.outputs] == names
    for found, wanted in zip(run(model), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_what_counts_tokens_or_looks_at_the_last_is_told_of_none_but_the_first(exported_vit):
    """The number of tokens, the last of them, and all from the last to the first, as others' files may ask for."""
    model = read(exported_vit(SPECS["class-token"]))
    common.ShapeInferencePass()(model)
    graph = model.graph
    tokens = [node for node in graph if node.op_type == "LayerNormalization"][-2].outputs[0]

    def constant(name, values):
        value = ir.Value(name=name, const_value=ir.tensor(np.array(values, dtype=np.int64), name=name))
        graph.register_initializer(value)
        return value

    last, axis, back = constant("last", [-1]), constant("axis", [1]), constant("back", [-1])
    far, near, first = constant("far", [10**6]), constant("near", [-(10**6)]), constant("first", [0])
    asked = [
        ir.node("Shape", [tokens], name="count"),
        ir.node("Gather", [tokens, last], attributes={"axis": 1}, name="last_token"),
        ir.node("Slice", [tokens, far, near, axis, back], name="reversed"),
        ir.node("Slice", [tokens, far, first, axis, back], name="reversed_but_the_first"),
        ir.node("ReduceMax", [tokens, axis], name="largest"),
        ir.node("Softmax", [tokens], attributes={"axis": 1}, name="shares"),
    ]
    for node in asked:
        node.outputs[0].name = f"{node.name}.output"
        node.outputs[0].dtype = ir.DataType.INT64 if node.op_type == "Shape" else ir.DataType.FLOAT
        graph.append(node)
    graph.outputs.extend(node.outputs[0] for node in asked)
    expected = run(model)
    assert PadTokens()(model).modified
    assert tokens_in_attention(model)[:3] == [24] * 3
    for found, wanted in zip(run(model), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_scores_far_below_0_are_above_those_of_rows_that_were_added(exported_vit):
    """A feature that all tokens have takes a million from the score of each, which softmax does not see."""
    model = read(exported_vit(SPECS["class-token"]))
    common.ShapeInferencePass()(model)
    graph = model.graph
    positions = next(value for value in graph.initializers.values() if tuple(value.shape) == (1, 17, 32))
    with_feature = positions.const_value.numpy().copy()
    with_feature[..., 0] += 1e3
    positions.const_value = ir.tensor(with_feature, name=positions.name)
    for layer in find_linears(graph):
        if tuple(layer.weight.shape) == (32, 96):
            weight = layer.weight.copy()
            weight[0] = [300.0] * 32 + [-300.0] * 32 + [0.0] * 32
            layer.matmul.replace_input_with(1, add_constant(graph, f"{layer.name}.far", weight))
    expected = run(model)
    assert PadTokens()(model).modified
    np.testing.assert_allclose(run(model)[0], expected[0], atol=2e-5)


def test_fused_attention_looks_at_none_but_the_first(exported_vit):
    model = read(exported_vit(SPECS["mean"]))
    common.ShapeInferencePass()(model)
    graph = model.graph
    norm = [node for node in graph if node.op_type == "LayerNormalization"][-1]
    fused = ir.node("Attention", [norm.inputs[0]] * 3, attributes={"q_num_heads": 2, "kv_num_heads": 2}, name="fused")
    fused.outputs[0].name, fused.outputs[0].dtype = "fused.output", ir.DataType.FLOAT
    fused.outputs[0].shape = norm.inputs[0].shape
    graph.insert_before(norm, fused)
    norm.replace_input_with(0, fused.outputs[0])
    graph.opset_imports[""] = 23
    expected = run(model)
    assert PadTokens()(model).modified
    np.testing.assert_allclose(run(model)[0], expected[0], atol=2e-5)


@pytest.mark.parametrize("option", ["query_key_norm", "pre_norm"])
def test_other_forms_are_left_or_give_the_same(exported_vit, option):
    model = read(exported_vit(ModelSpec(**SIZES, **{option: True})))
    common.ShapeInferencePass()(model)
    expected = run(model)
    PadTokens()(model)
    np.testing.assert_allclose(run(model)[0], expected[0], atol=2e-5)


def test_a_graph_without_attention_stays():
    node = ir.node(
        "Relu", [ir.Value(name="images", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 3, 4, 4]))]
    )
    model = ir.Model(
        ir.Graph(list(node.inputs), list(node.outputs), nodes=[node], opset_imports={"": 20}), ir_version=10
    )
    assert not PadTokens()(model).modified
    assert padding_of(model.graph) == (0, 0)


def test_a_saved_file_is_well_formed(exported_vit, tmp_path):
    model = read(exported_vit(SPECS["registers"]))
    common.ShapeInferencePass()(model)
    PadTokens()(model)
    save(model, tmp_path / "padded.onnx")
    onnx.checker.check_model(str(tmp_path / "padded.onnx"), full_check=True)
