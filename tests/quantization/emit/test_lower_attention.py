"""MultiHeadAttention where an engine is older than ONNX's Attention, and the opset that goes with it."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_files import emit_float32

from edgevit.errors import GraphError
from edgevit.models.spec import ModelSpec
from edgevit.quantization.emit.lower_attention import LowerAttention, lower_attention

IMAGES = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)


def kinds(path):
    return {node.op_type for node in onnx.load(path).graph.node}


def opset(path):
    return next(each.version for each in onnx.load(path).opset_import if each.domain in ("", "ai.onnx"))


def run(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": IMAGES})[0]


def test_every_attention_is_written_for_older_engines(tmp_path, exported_vit):
    spec = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=24, depth=2, heads=2, classes=5)
    path = tmp_path / "engine.onnx"
    emit_float32(exported_vit(spec), "onnxruntime", path)
    assert (opset(path), "Attention" in kinds(path)) == (23, True)
    expected = run(path)
    lower_attention(path)
    assert opset(path) == 20
    assert "Attention" not in kinds(path)
    onnx.checker.check_model(str(path))
    np.testing.assert_allclose(run(path), expected, atol=1e-5)


def attention_model(path, *, inputs=3, extra=(), **attributes):
    """A model with one Attention of one query, and what else is asked for."""
    given = {"q_num_heads": 2, "kv_num_heads": 2, "scale": 0.5, **attributes}
    names = ["q", "k", "v", "mask"][:inputs]
    nodes = [helper.make_node("Attention", names, ["y"], **given), *extra]
    shapes = {"q": [1, 1, 8], "k": [1, 3, 8], "v": [1, 3, 8], "mask": [1, 3]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in names],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [1, 1, 8])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), path)
    return path


def lowered(path, *, every=False):
    model = ir.load(path)
    LowerAttention(every=every)(model)
    return model


def test_one_query_is_enough(tmp_path):
    model = lowered(attention_model(tmp_path / "model.onnx"))
    assert [node.op_type for node in model.graph] == ["MultiHeadAttention"]
    assert model.graph.opset_imports[""] == 20


@pytest.mark.parametrize("given", [{"inputs": 4}, {"is_causal": 1}, {"softcap": 2.0}, {"kv_num_heads": 1}])
@pytest.mark.parametrize("every", [False, True])
def test_what_the_other_operator_would_read_otherwise_stays(tmp_path, given, every):
    model = lowered(attention_model(tmp_path / "model.onnx", **given), every=every)
    assert [node.op_type for node in model.graph] == ["Attention"]
    assert model.graph.opset_imports[""] == 23


@pytest.mark.parametrize(
    "extra",
    [
        helper.make_node("RMSNormalization", ["y", "q"], ["z"]),  # of opset 23
        helper.make_node("Cast", ["y"], ["z"], to=TensorProto.FLOAT, saturate=1, round_mode="up"),  # one of opset 24
    ],
)
def test_the_opset_stays_where_something_else_needs_it(tmp_path, extra):
    model = lowered(attention_model(tmp_path / "model.onnx", extra=[extra]), every=True)
    assert [node.op_type for node in model.graph] == ["MultiHeadAttention", extra.op_type]
    assert model.graph.opset_imports[""] == 23


def test_a_damaged_file_is_an_error(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(GraphError):
        lower_attention(tmp_path / "model.onnx")
