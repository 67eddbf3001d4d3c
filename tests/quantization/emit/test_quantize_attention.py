"""Attention in integers: near to float, and all four operands or none."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgevit.backends import get_backend
from edgevit.errors import BundleError
from edgevit.quantization.emit.parts import PartLinears
from edgevit.quantization.emit.quantize_attention import SOFTMAX_SCALE, QuantizeAttention
from edgevit.quantization.emit.select_tokens import SelectTokens
from edgevit.quantization.linears import load_graph
from edgevit.quantization.plan import AttentionPlan
from edgevit.quantization.prepare import CalibrationImages, prepare


@pytest.fixture(scope="module")
def prepared(quantized, tmp_path_factory):
    images = CalibrationImages(lambda: iter([quantized.images]), 1)
    places = {"symmetric": tmp_path_factory.mktemp("prepared") / "model.onnx"}
    return prepare(quantized.path, images, places)[1]["symmetric"]


def written(model, plans, path, **options):
    graph = load_graph(model)
    for each in (PartLinears(), SelectTokens(), QuantizeAttention(plans, **options)):
        each(graph)
    ir.save(graph, path)
    onnx.checker.check_model(str(path), full_check=True)
    return path


def run(path, images):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


def test_scales_hold_what_calibration_saw(quantized, prepared):
    """The scales are those of what is multiplied: run the operands out of the graph and look."""
    assert [plan.name for plan in prepared.plan.attentions] == ["blocks.0.attn", "blocks.1.attn"]
    model = onnx.load(prepared.model)
    products = [node for node in model.graph.node if node.op_type == "MatMul" and "attn.matmul" in node.output[0]]
    scores, mixed = products[0], products[1]
    names = [scores.input[0], scores.input[1], mixed.input[1]]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(names, {"images": quantized.images})
    plan = prepared.plan.attentions[0]
    for values, scale in zip(found, (plan.query_scale, plan.key_scale, plan.value_scale), strict=True):
        # the weights have been rounded since
        assert np.abs(values).max() / 127 == pytest.approx(scale, rel=0.02)


def test_logits_stay_near_and_all_four_operands_are_integers(quantized, prepared, tmp_path):
    path = written(prepared.model, prepared.plan.attentions, tmp_path / "model.onnx")
    exact = run(prepared.model, quantized.images)
    error = ((run(path, quantized.images) - exact) ** 2).mean() / (exact**2).mean()
    assert 0 < error < 1e-3
    nodes = onnx.load(path).graph.node
    by_output = {output: node for node in nodes for output in node.output}
    products = [node for node in nodes if node.op_type == "MatMul" and "attn.matmul" in node.output[0]]
    assert len(products) == 4
    assert {by_output[name].op_type for node in products for name in node.input} == {"DequantizeLinear"}
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    assert constants["blocks.0.attn.softmax.scale"] == np.float32(SOFTMAX_SCALE)
    assert constants["blocks.0.attn.softmax.zero_point"].dtype == np.int8


def test_openvino_multiplies_them_in_integers(quantized, prepared, tmp_path):
    path = written(prepared.model, prepared.plan.attentions, tmp_path / "model.onnx")
    with get_backend("openvino").open(path, threads=1, settings={}) as session:
        found = session.infer(quantized.images)
        nodes = session._compiled.get_runtime_model().get_ordered_ops()
        kinds = {str(node.get_rt_info()["primitiveType"].astype(str)) for node in nodes if "attn" in str(node)}
    expected = run(path, quantized.images)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    assert any(kind.lower().endswith("i8") for kind in kinds), kinds


def test_an_attention_that_is_not_there(prepared, tmp_path):
    plan = AttentionPlan(name="nowhere", query_scale=1, key_scale=1, value_scale=1)
    with pytest.raises(BundleError, match="'nowhere' is not in the model"):
        written(prepared.model, [plan], tmp_path / "model.onnx")


def test_scales_that_float16_cannot_hold_become_its_smallest(prepared, tmp_path):
    plan = AttentionPlan(name="blocks.0.attn", query_scale=1e-12, key_scale=1.0001, value_scale=1)
    path = written(prepared.model, [plan], tmp_path / "model.onnx", scale_type=np.float16)
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    assert constants["blocks.0.attn.query.scale"] == np.finfo(np.float16).tiny
    assert constants["blocks.0.attn.key.scale"] == 1


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_must_be_above_0_and_finite(scale):
    with pytest.raises(BundleError, match="not above 0 and finite"):
        AttentionPlan(name="a", query_scale=1, key_scale=scale, value_scale=1)
