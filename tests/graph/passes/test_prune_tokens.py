"""Only one token is computed where only one is looked at, and the answer stays the same."""

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_files import emit_float32

from edgevit.graph.linears import find_linears, load_graph
from edgevit.graph.passes.prune_tokens import PruneToClassToken, nodes_of_pooled_token
from edgevit.models.spec import ModelSpec, RotaryPositions

SPEC = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, heads=2, classes=5)
IMAGES = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)


def run(path, names=()):
    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": IMAGES})


def test_the_last_block_computes_one_token_from_its_query_on(tmp_path, exported_vit):
    path = exported_vit(SPEC)
    model = load_graph(path)
    products = [layer.matmul for layer in find_linears(model.graph)]
    known = [product.name for product in products if product in nodes_of_pooled_token(model.graph)]
    assert known == [f"blocks.1.{layer}" for layer in ("attn.proj", "mlp.fc1", "mlp.fc2")]
    assert PruneToClassToken()(model).modified
    model.graph.sort()
    ir.save(model, tmp_path / "selected.onnx")
    onnx.checker.check_model(str(tmp_path / "selected.onnx"), full_check=True)
    np.testing.assert_allclose(run(tmp_path / "selected.onnx")[0], run(path)[0], atol=1e-5)
    ends = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    names = [f"blocks.{block}.{end}.add.output" for block in (0, 1) for end in ends]
    tokens = [value.shape[1] for value in run(tmp_path / "selected.onnx", names)[1:]]
    assert tokens == [17, 17, 17, 17, 17, 1, 1, 1]
    assert [value.shape[1] for value in run(path, names)[1:]] == [17] * 8
    before, after = ({node.name for node in onnx.load(p).graph.node} for p in (path, tmp_path / "selected.onnx"))
    assert before < after  # names are what kernels are found by
    assert not PruneToClassToken()(model).modified  # there is nothing left to do


@pytest.mark.parametrize("dialect", ["onnxruntime", "openvino"])
def test_so_it_is_in_the_forms_for_engines(tmp_path, exported_vit, dialect):
    path = exported_vit(SPEC)
    emit_float32(path, dialect, tmp_path / "engine.onnx")
    names = [f"blocks.{block}.mlp.fc2.add.output" for block in (0, 1)]
    assert [value.shape[1] for value in run(tmp_path / "engine.onnx", names)[1:]] == [17, 1]


@pytest.mark.parametrize("heads", [1, 2])
def test_so_is_the_query_where_positions_turn_it(tmp_path, exported_vit, heads):
    rotary = RotaryPositions(coordinates="centres")
    path = exported_vit(msgspec.structs.replace(SPEC, heads=heads, rotary=rotary))
    emit_float32(path, "onnxruntime", tmp_path / "engine.onnx")
    model = onnx.load(tmp_path / "engine.onnx")
    queries = [node.input[0] for node in model.graph.node if "Attention" in node.op_type]
    answers, *tokens = run(tmp_path / "engine.onnx", queries)
    assert [value.shape[1] for value in tokens] == [17, 1]
    np.testing.assert_allclose(answers, run(path)[0], atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "class+mean"])
def test_a_model_that_looks_at_all_tokens_computes_them_all(tmp_path, exported_vit, pooling):
    path = exported_vit(msgspec.structs.replace(SPEC, pooling=pooling))
    model = load_graph(path)
    PruneToClassToken()(model)
    model.graph.sort()
    ir.save(model, tmp_path / "selected.onnx")
    np.testing.assert_allclose(run(tmp_path / "selected.onnx")[0], run(path)[0], atol=1e-5)
    assert run(tmp_path / "selected.onnx", ["blocks.1.mlp.fc2.add.output"])[1].shape[1] == 17


TEXT = """<ir_version: 8, opset_import: ["": 20]>
g (float[n, 5, 4] x) => (float[n, 4] y)
<float[n, 5, 4] a, float[n, 5, 4] b, int64 index = {2}, float[1, 5, 1] positions = {1, 2, 3, 4, 5}>
{
    a = Relu(x)
    b = OPERATION
    y = Gather<axis = 1>(b, index)
}"""


@pytest.mark.parametrize(
    ("operation", "moved"),
    [
        ("Add(a, x)", True),
        ("Add(a, positions)", True),
        ("Softmax<axis = 1>(a)", False),  # tokens see each other
        ("LayerNormalization<axis = 1>(a, positions)", False),
    ],
)
def test_only_what_treats_each_token_by_itself_is_passed(operation, moved, tmp_path):
    model = ir.from_onnx_text(TEXT.replace("OPERATION", operation))
    images = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    expected = onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": images})[0]
    assert PruneToClassToken()(model).modified == moved
    model.graph.sort()
    found = onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": images})[0]
    np.testing.assert_array_equal(found, expected)


def test_a_value_that_is_wanted_whole_is_not_cut(tmp_path):
    text = TEXT.replace("OPERATION", "Add(a, x)").replace("=> (float[n, 4] y)", "=> (float[n, 4] y, float[n, 5, 4] a)")
    model = ir.from_onnx_text(text.replace("<float[n, 5, 4] a, ", "<"))
    images = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    expected = onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": images})
    assert PruneToClassToken()(model).modified
    model.graph.sort()
    found = onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": images})
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
