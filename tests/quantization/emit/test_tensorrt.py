"""What is written for TensorRT beside INT8 products: attention in INT8, and FP8."""

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_files import calibrate, emit, emit_float8, emit_float32, make_plan, optimize_files, read
from rtx import compiled, needs_rtx

from edgevit.errors import GraphError, InputError
from edgevit.graph.editing import set_linear
from edgevit.graph.linears import find_linears, load_graph
from edgevit.graph.node_facts import Role, is_marked
from edgevit.graph.saving import save
from edgevit.quantization.emit import float8
from edgevit.quantization.lint.tensorrt_rules import lint
from edgevit.quantization.ptq import CalibrationImages


@pytest.fixture(scope="module")
def optimized(quantized, tmp_path_factory):
    place = tmp_path_factory.mktemp("optimized") / "model.onnx"
    images = CalibrationImages(lambda: iter([quantized.images]), 1)
    return optimize_files(quantized.path, images, {"symmetric": place})[1]["symmetric"]


def run(path, images):
    """Run a file as it is: onnxruntime's rewrites move FP8 to operators that do not take it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def distance(path, quantized):
    """Return how far the logits of ``path`` are from float32's, as a share of these."""
    expected = run(quantized.path, quantized.images)
    return np.linalg.norm(run(path, quantized.images) - expected) / np.linalg.norm(expected)


FORMS = {
    "int8": lambda one, path: emit(one.model, one.plan, "tensorrt", path),
    "int8 attention": lambda one, path: emit(one.model, one.plan, "tensorrt", path, attention="quantized"),
    "fp8": lambda one, path: emit_float8(one.model, one.plan, "tensorrt", path),
    "fp8 attention": lambda one, path: emit_float8(one.model, one.plan, "tensorrt", path, attention="quantized"),
}


@pytest.fixture(scope="module")
def forms(optimized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    for name, write in FORMS.items():
        assert write(optimized, folder / f"{name}.onnx") == {}
    return {name: folder / f"{name}.onnx" for name in FORMS}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_valid_keeps_the_rules_and_is_near_to_float32(forms, quantized, form):
    onnx.checker.check_model(str(forms[form]), full_check=True)
    assert lint(forms[form], "tensorrt") == []
    assert distance(forms[form], quantized) < 0.15
    model = onnx.load(forms[form])
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@needs_rtx
def test_attention_is_one_kernel_in_int8_the_last_one_too(forms):
    _, report = compiled(forms["int8 attention"])
    assert report.counts.fused_attentions == {"int8": 2}
    assert {linear.kernel for linear in report.linears} == {"gemm int8"}
    assert report.warnings == ()


@needs_rtx
def test_of_so_few_tokens_fp8_makes_no_single_kernel_and_the_report_says_so(forms):
    # With 50 tokens and more it does: tests/backends/tensorrt/test_kernels.py.
    _, report = compiled(forms["fp8 attention"], "8.9")
    assert report.counts.fused_attentions == {}
    assert report.warnings == ("'blocks.0.attn' and 1 more is not one kernel: unknown why",)
    assert {linear.kernel for linear in report.linears} == {"gemm float8"}


@pytest.mark.parametrize("form", ["int8 attention", "fp8 attention"])
def test_query_key_and_value_stay_one_product_and_are_quantized_behind_it(forms, form):
    model = onnx.load(forms[form])
    names = [node.name for node in model.graph.node]
    assert "blocks.0.attn.qkv" in names
    assert "blocks.0.attn.qkv.split_0" not in names
    (split,) = [node for node in model.graph.node if node.op_type == "Split" and "blocks.0" in node.name]
    users = [node for node in model.graph.node if set(split.output).intersection(node.input)]
    assert [node.op_type for node in users] == ["QuantizeLinear"] * 3


def test_fp8_stores_weights_and_scales_by_the_largest_magnitude(forms, optimized):
    model = onnx.load(forms["fp8"])
    stored = {each.name: each for each in model.graph.initializer}
    weight = stored["head.weight.float8_e4m3fn"]
    assert weight.data_type == onnx.TensorProto.FLOAT8E4M3FN
    values = onnx.numpy_helper.to_array(weight).astype(np.float32)
    scale = onnx.numpy_helper.to_array(stored["head.weight.scale.float16"]).astype(np.float32)
    linear = next(each for each in find_linears(load_graph(optimized.model).graph) if each.name == "head")
    # Half of the step of 3 bits of mantissa, or of float8's smallest numbers.
    bound = np.maximum(np.abs(linear.weight) / 16, scale * 2.0**-10) * 1.01
    assert (np.abs(values * scale - linear.weight) <= bound).all()
    planned = next(each.quantization for each in optimized.plan.linears if each.name == "head")
    written = onnx.numpy_helper.to_array(stored["head.input.scale.float16"])
    np.testing.assert_allclose(written, planned.activation_scale * 127 / 448, rtol=1e-3)


def test_fp8_undoes_what_shifts_an_input_for_int8(optimized, quantized, tmp_path):
    layers = {layer.name: layer for layer in find_linears(load_graph(optimized.model).graph)}
    shifted = {name for name, layer in layers.items() if is_marked(layer.input.producer(), Role.SHIFT, name)}
    assert "blocks.0.mlp.fc2" in shifted
    model = read(optimized.model)
    plan = float8.without_shifts(model, optimized.plan)
    save(model, tmp_path / "model.onnx")
    assert "Add" not in {
        layer.input.producer().op_type for layer in find_linears(load_graph(tmp_path / "model.onnx").graph)
    }
    before, after = run(optimized.model, quantized.images), run(tmp_path / "model.onnx", quantized.images)
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max())
    for one, other in zip(optimized.plan.linears, plan.linears, strict=True):
        wider = other.quantization.activation_scale > one.quantization.activation_scale
        assert wider == (one.name in shifted)


def test_attention_stays_float_and_says_why(optimized, tmp_path):
    def kept(plan):
        return emit(optimized.model, plan, "tensorrt", tmp_path / "model.onnx", attention="quantized")

    first, second = optimized.plan.attentions
    without = msgspec.structs.replace(optimized.plan, attentions=(first,))
    assert kept(without) == {
        second.name: "its plan has no scales for it, or one of its factors stayed at 0 on every image"
    }
    linears = tuple(
        msgspec.structs.replace(each, quantization=None, fallback="a test")
        if each.name == "blocks.1.attn.proj"
        else each
        for each in optimized.plan.linears
    )
    assert kept(msgspec.structs.replace(optimized.plan, linears=linears)) == {
        "blocks.1.attn": "what it gives is not quantized, so it would not be one kernel"
    }
    names = [node.name for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert {"blocks.0.attn.qkv", "blocks.1.attn.qkv.split_0"} <= set(names)


def test_a_dialect_without_such_forms(optimized, tmp_path):
    with pytest.raises(InputError, match="openvino has no form for FP8"):
        emit_float8(optimized.model, optimized.plan, "openvino", tmp_path / "model.onnx")
    with pytest.raises(InputError, match="portable has no form for attention in INT8"):
        emit(optimized.model, optimized.plan, "portable", tmp_path / "model.onnx", attention="quantized")


@pytest.mark.parametrize(("dialect", "opset"), [("tensorrt", 20), ("tensorrt-legacy", 17)])
def test_float32_for_tensorrt(quantized, tmp_path, dialect, opset):
    emit_float32(quantized.path, dialect, tmp_path / "model.onnx")
    assert load_graph(tmp_path / "model.onnx").opset_imports[""] == opset
    assert distance(tmp_path / "model.onnx", quantized) < 1e-5


@needs_rtx
def test_fp8_is_refused_for_gpus_that_lack_it(forms):
    with pytest.raises(GraphError, match="fp8"):
        compiled(forms["fp8"], "8.6")


def test_a_bias_that_float16_cannot_hold_is_named(quantized, tmp_path):
    model = load_graph(quantized.path)
    layer = find_linears(model.graph)[3]
    set_linear(model.graph, layer, layer.weight, np.full(layer.weight.shape[1], 1e5, dtype=np.float32))
    save(model, tmp_path / "large.onnx")
    table = calibrate(tmp_path / "large.onnx", [quantized.images], total=1)
    plan = make_plan(tmp_path / "large.onnx", table, scheme="symmetric")
    with pytest.raises(GraphError, match=r"fc2\.bias.* has values beyond 65504"):
        emit(tmp_path / "large.onnx", plan, "tensorrt", tmp_path / "int8.onnx")
