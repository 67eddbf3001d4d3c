"""Attention in integers: near to float, and both operands of a product or none."""

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_files import emit, optimize_files

from edgevit.backends import get_backend
from edgevit.errors import BundleError
from edgevit.graph.linears import load_graph
from edgevit.graph.passes.prune_tokens import PruneToClassToken
from edgevit.quantization.emit.qkv_split import SplitQkv
from edgevit.quantization.emit.quantize_attention import SOFTMAX_SCALE, QuantizeAttention
from edgevit.quantization.plan import AttentionPlan
from edgevit.quantization.ptq import CalibrationImages


@pytest.fixture(scope="module")
def both(quantized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("optimized")
    images = CalibrationImages(lambda: iter([quantized.images]), 1)
    places = {scheme: folder / f"{scheme}.onnx" for scheme in ("symmetric", "asymmetric")}
    return optimize_files(quantized.path, images, places)[1]


@pytest.fixture(scope="module")
def optimized(both):
    return both["symmetric"]


def written(model, pass_, path):
    graph = load_graph(model)
    for each in (SplitQkv(), PruneToClassToken(), pass_):
        each(graph)
    ir.save(graph, path)
    onnx.checker.check_model(str(path), full_check=True)
    return path


def products(model):
    """Return the MatMuls of attention: query times key, softmax times value, block by block."""
    return [node for node in model.graph.node if node.op_type == "MatMul" and "attn.matmul" in node.output[0]]


def run(path, images):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


def test_scales_hold_what_calibration_saw(quantized, optimized):
    """The scales are those of what is multiplied: run the operands out of the graph and look."""
    assert [plan.name for plan in optimized.plan.attentions] == ["blocks.0.attn", "blocks.1.attn"]
    model = onnx.load(optimized.model)
    scores, mixed = products(model)[:2]
    names = [scores.input[0], scores.input[1], mixed.input[1]]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(names, {"images": quantized.images})
    plan = optimized.plan.attentions[0]
    for values, scale in zip(found, (plan.query_scale, plan.key_scale, plan.value_scale), strict=True):
        # the weights have been rounded since
        assert np.abs(values).max() / 127 == pytest.approx(scale, rel=0.02)


@pytest.mark.parametrize("chosen", [("scores",), ("scores", "mixed")])
def test_logits_stay_near_and_both_operands_of_a_product_are_integers(quantized, optimized, tmp_path, chosen):
    path = written(optimized.model, QuantizeAttention(optimized.plan.attentions, chosen), tmp_path / "model.onnx")
    exact = run(optimized.model, quantized.images)
    error = ((run(path, quantized.images) - exact) ** 2).mean() / (exact**2).mean()
    assert 0 < error < 1e-3
    model = onnx.load(path)
    integers = {output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    found = [[name in integers for name in node.input] for node in products(model)]
    assert found == [[True] * 2, ["mixed" in chosen] * 2] * 2
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    assert {values.dtype.name for name, values in constants.items() if name.endswith("zero_point")} == {"int8"}
    assert constants.get("blocks.0.attn.softmax.scale") == (np.float32(SOFTMAX_SCALE) if "mixed" in chosen else None)


def attention_kernels(path, images):
    """Return what OpenVINO answers and which kernels it runs attention with; those of Linear layers are others."""
    with get_backend("openvino").open(path, threads=1, settings={}) as session:
        found = session.infer(images)
        nodes = [node.get_rt_info() for node in session._compiled.get_runtime_model().get_ordered_ops()]
    infos = [{key: str(info[key].astype(str)) for key in ("layerType", "primitiveType")} for info in nodes]
    return found, [info["primitiveType"] for info in infos if info["layerType"] in ("Subgraph", "MatMul")]


def test_openvino_multiplies_queries_and_keys_in_integers(quantized, both, tmp_path):
    one = both["asymmetric"]
    for name, plan in (("integer", one.plan), ("float", msgspec.structs.replace(one.plan, attentions=()))):
        emit(one.model, plan, "openvino", tmp_path / f"{name}.onnx")
    found, kernels = attention_kernels(tmp_path / "integer.onnx", quantized.images)
    assert sum(kernel.endswith(("i8", "I8")) for kernel in kernels) == 2, kernels
    expected = run(tmp_path / "integer.onnx", quantized.images)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    _, kernels = attention_kernels(tmp_path / "float.onnx", quantized.images)
    assert not any(kernel.endswith(("i8", "I8")) for kernel in kernels), kernels


def test_an_attention_that_is_not_there(optimized, tmp_path):
    plan = AttentionPlan(name="nowhere", query_scale=1, key_scale=1, value_scale=1)
    with pytest.raises(BundleError, match="'nowhere' is not in the model"):
        written(optimized.model, QuantizeAttention([plan]), tmp_path / "model.onnx")


def test_scales_that_float16_cannot_hold_become_its_smallest(optimized, tmp_path):
    plan = AttentionPlan(name="blocks.0.attn", query_scale=1e-12, key_scale=1.0001, value_scale=1)
    path = written(optimized.model, QuantizeAttention([plan], scale_type=np.float16), tmp_path / "model.onnx")
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    assert constants["blocks.0.attn.query.scale"] == np.finfo(np.float16).tiny
    assert constants["blocks.0.attn.key.scale"] == 1


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_must_be_above_0_and_finite(scale):
    with pytest.raises(BundleError, match="not above 0 and finite"):
        AttentionPlan(name="a", query_scale=1, key_scale=scale, value_scale=1)
