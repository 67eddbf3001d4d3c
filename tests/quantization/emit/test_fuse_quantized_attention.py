"""Attention and the products in front of it as one operator: where that is so, and that the answer stays."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_files import calibrate, emit, make_plan

from edgevit.backends import get_backend
from edgevit.graph.linears import load_graph
from edgevit.graph.node_facts import layer_of
from edgevit.models.spec import ModelSpec
from edgevit.quantization import engine_file
from edgevit.quantization.emit import onnxruntime
from edgevit.quantization.emit.fuse_quantized_attention import FuseQuantizedAttention

QKV = {"blocks.0.attn.qkv", "blocks.1.attn.qkv"}
IMAGES = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)


@pytest.fixture
def before_and_after(tmp_path, exported_vit, monkeypatch):
    """Return what makes INT8 files for onnxruntime of a random ViT, without the pass and with it."""

    def make(scheme="asymmetric", **options):
        spec = {"image_size": (16, 16), "patch_size": (4, 4), "width": 24, "depth": 2, "heads": 2, "classes": 5}
        path = exported_vit(ModelSpec(**{**spec, **options}))
        plan = make_plan(path, calibrate(path, [IMAGES], total=1), scheme=scheme)
        emit(path, plan, "onnxruntime", tmp_path / "after.onnx")
        with monkeypatch.context() as patched:
            patched.setattr(
                onnxruntime, "FuseQuantizedAttention", onnxruntime.PruneToClassToken
            )  # once more: no change
            emit(path, plan, "onnxruntime", tmp_path / "before.onnx")
        return tmp_path / "before.onnx", tmp_path / "after.onnx"

    return make


def opened(path):
    return get_backend("onnxruntime").open(path, threads=1, settings={})


def attentions(path):
    return sorted(node.op_type for node in onnx.load(path).graph.node if "Attention" in node.op_type)


def test_the_answer_is_the_same(before_and_after):
    before, after = before_and_after()
    assert attentions(before) == ["Attention", "MultiHeadAttention"]
    assert attentions(after) == ["MultiHeadAttention", "QAttention"]  # the last one's query is of the class token alone
    with opened(before) as first, opened(after) as second:
        for batch in (1, 3):
            expected, found = first.infer(IMAGES[:batch]), second.infer(IMAGES[:batch])
            np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
        kernels = [(kernel.layer, kernel.integer) for kernel in second.linear_kernels()]
        assert kernels == [(kernel.layer, kernel.integer) for kernel in first.linear_kernels()]
    assert all(integer for _, integer in kernels)
    assert after.stat().st_size < 1.05 * before.stat().st_size


@pytest.fixture
def marked(monkeypatch):
    """Leave on the nodes of files what is noted on them, as it is when the pass is applied."""
    monkeypatch.setattr(engine_file, "clear_facts", lambda _graph: None)


@pytest.mark.usefixtures("marked")
def test_a_layer_without_bias(before_and_after):
    before, _ = before_and_after()
    model = load_graph(before)
    for node in model.graph:
        if layer_of(node) in QKV and node.op_type == "MatMulIntegerToFloat":
            node.resize_inputs(6)
    after = before.with_name("no-bias-after.onnx")
    for path in (before, after):
        ir.save(model, path)
        FuseQuantizedAttention()(model)
    assert attentions(after) == ["MultiHeadAttention", "QAttention"]
    with opened(before) as first, opened(after) as second:
        expected, found = first.infer(IMAGES), second.infer(IMAGES)
        np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_heads_that_threads_do_not_share_equally_keep_their_operator(before_and_after):
    before, after = before_and_after(width=36, heads=3)
    assert attentions(after) == ["MultiHeadAttention", "MultiHeadAttention"]
    assert after.read_bytes() == before.read_bytes()


def test_a_layer_that_is_float_is_left_alone(before_and_after, monkeypatch):
    monkeypatch.setattr("edgevit.quantization.emit.fuse_quantized_attention._PRODUCT", "MatMul")
    before, after = before_and_after()
    assert after.read_bytes() == before.read_bytes()


def test_signed_activations_keep_their_operators(before_and_after):
    before, after = before_and_after(scheme="symmetric")
    assert attentions(after) == ["Attention", "MultiHeadAttention"]
    assert after.read_bytes() == before.read_bytes()


@pytest.mark.usefixtures("marked")
def test_the_pass_says_whether_it_changed_anything(before_and_after):
    before, after = before_and_after()
    assert FuseQuantizedAttention()(load_graph(before)).modified
    assert not FuseQuantizedAttention()(load_graph(after)).modified
