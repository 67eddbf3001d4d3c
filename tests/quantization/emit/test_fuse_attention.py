"""One operator in the place of each attention: which one, and that the answer stays."""

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgevit.graph.linears import load_graph
from edgevit.models.spec import ModelSpec, RotaryPositions
from edgevit.quantization.emit.fuse_attention import FuseAttention

IMAGES = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)


def with_heads(heads):
    return ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=12 * heads, depth=2, heads=heads, classes=5)


def fused(path, folder):
    model = load_graph(path)
    assert FuseAttention()(model).modified
    ir.save(model, folder / "fused.onnx")
    onnx.checker.check_model(str(folder / "fused.onnx"), full_check=True)
    return folder / "fused.onnx"


def run(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": IMAGES})[0]


def kinds(path):
    return {node.op_type for node in onnx.load(path).graph.node if "Attention" in node.op_type}


@pytest.mark.parametrize(("heads", "operator"), [(2, "Attention"), (3, "MultiHeadAttention"), (4, "Attention")])
def test_heads_that_threads_share_equally_get_the_standard_operator(tmp_path, exported_vit, heads, operator):
    path = exported_vit(with_heads(heads))
    after = fused(path, tmp_path)
    assert kinds(after) == {operator}
    opsets = {each.domain: each.version for each in onnx.load(after).opset_import}
    assert (opsets[""] >= 23, "com.microsoft" in opsets) == (operator == "Attention", operator != "Attention")
    np.testing.assert_allclose(run(after), run(path), atol=1e-4)


@pytest.mark.parametrize("old", [18, 19])
def test_graphs_of_opsets_that_later_ones_read_differently_keep_theirs(exported_vit, old):
    path = exported_vit(with_heads(2))
    model = load_graph(path)
    assert model.graph.opset_imports[""] >= 20
    model.graph.opset_imports[""] = old
    assert FuseAttention()(model).modified
    assert {node.op_type for node in model.graph if "Attention" in node.op_type} == {"MultiHeadAttention"}
    assert model.graph.opset_imports[""] == old


@pytest.mark.parametrize(
    ("heads", "parts", "operator"),
    [
        (3, {"rotary": RotaryPositions(coordinates="centres")}, "MultiHeadAttention"),
        (2, {"rotary": RotaryPositions(coordinates="numbers", own=True), "query_key_norm": True}, "Attention"),
        (2, {"relative_positions": True}, "MultiHeadAttention"),
    ],
    ids=["turned", "turned-by-head-and-normed", "bias"],
)
def test_what_is_done_to_queries_and_keys_stays_in_front_of_it(tmp_path, exported_vit, heads, parts, operator):
    path = exported_vit(msgspec.structs.replace(with_heads(heads), **parts))
    after = fused(path, tmp_path)
    assert kinds(after) == {operator}
    left = {node.op_type for node in onnx.load(after).graph.node if "attn" in node.name}
    assert left.isdisjoint({"Softmax", "Transpose"})
    np.testing.assert_allclose(run(after), run(path), atol=1e-4)
