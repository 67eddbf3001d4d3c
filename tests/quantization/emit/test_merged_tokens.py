"""Merged tokens in the forms for engines: attention is still one kernel, in integers where it was, and sees one token
at last."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_files import emit, emit_float32, read
from rtx import compiled, needs_rtx

from edgevit.backends import get_backend
from edgevit.files import sha256_of
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.saving import save
from edgevit.models.spec import ModelSpec
from edgevit.quantization.calibration.calibrate import calibrate
from edgevit.quantization.lint.tensorrt_rules import lint
from edgevit.quantization.ptq import CalibrationImages, optimize

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
SCHEDULE, LEFT = (0, 4, 3, 0), (17, 17, 13, 10)


def spec(heads, **options):
    sizes = {"image_size": (16, 16), "patch_size": (4, 4), "width": 16 * heads, "depth": 4, "classes": 5}
    return ModelSpec(heads=heads, **sizes, **options)


def merged(path, place):
    """Write the model of ``path`` with its tokens merged to ``place``."""
    model = read(path)
    MergeTokens(SCHEDULE)(model)
    save(model, place)
    return place


def run(path, images=IMAGES):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


def attentions(path):
    """Return the fused attentions: operator, how many queries and keys there are, what makes the bias."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    tokens = {name: shape[1].dim_value for name, shape in shapes.items() if len(shape) == 3}
    makers = {name: node.op_type for node in graph.node for name in node.output}
    found = [node for node in graph.node if node.op_type in ("Attention", "MultiHeadAttention")]
    return [
        (
            node.op_type,
            tokens[node.input[0]],
            tokens[node.input[1]],
            makers[node.input[-1]] if len(node.input) > 3 else "",
        )
        for node in found
    ]


@pytest.mark.parametrize(("heads", "operator"), [(2, "Attention"), (3, "MultiHeadAttention")])
def test_attention_with_sizes_of_tokens_is_one_operator(tmp_path, exported_vit, heads, operator):
    before, after = merged(exported_vit(spec(heads)), tmp_path / "merged.onnx"), tmp_path / "engine.onnx"
    emit_float32(before, "onnxruntime", after)
    onnx.checker.check_model(str(after), full_check=True)
    assert attentions(after) == [
        (operator, 17, 17, ""),
        (operator, 17, 17, ""),
        (operator, 13, 13, "Expand"),
        (operator, 1, 10, "Reshape"),  # of the class token alone, to whose query the bias needs no expanding
    ]
    assert "Softmax" not in {node.op_type for node in onnx.load(after).graph.node}
    for batch in (1, 3):
        np.testing.assert_allclose(run(after, IMAGES[:batch]), run(before, IMAGES[:batch]), atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_where_all_tokens_are_looked_at_all_are_computed(tmp_path, exported_vit, pooling):
    before = merged(exported_vit(spec(2, pooling=pooling)), tmp_path / "merged.onnx")
    emit_float32(before, "onnxruntime", tmp_path / "engine.onnx")
    assert attentions(tmp_path / "engine.onnx")[3][:3] == ("Attention", 10, 10)
    np.testing.assert_allclose(run(tmp_path / "engine.onnx"), run(before), atol=1e-4)


@pytest.fixture(scope="module")
def optimized(tmp_path_factory, exported_vit):
    """Return what makes an optimized model of heads and scheme, merged before calibration, and what it gives."""
    folder = tmp_path_factory.mktemp("optimized")
    images = CalibrationImages(lambda: iter([IMAGES]), 1)

    def make(heads, scheme):
        path = merged(exported_vit(spec(heads)), folder / f"merged-{heads}.onnx")
        table = calibrate(read(path), images.read(), total=1, model_sha256=sha256_of(path), rotated=False)
        made = optimize(read(path), table, images, scheme)
        place = folder / f"{scheme}-{heads}.onnx"
        return place, made.save(place, place.with_suffix(".json")).plan, run(path)

    return make


@pytest.mark.parametrize(
    ("heads", "kinds"),
    [
        # QAttention adds nothing to scores, and gives no keys, by which tokens are compared
        (2, ["Attention", "Attention", "Attention", "QAttention"]),
        (3, ["MultiHeadAttention"] * 4),
    ],
)
def test_int8_for_onnxruntime(tmp_path, optimized, heads, kinds):
    path, plan, expected = optimized(heads, "asymmetric")
    emit(path, plan, "onnxruntime", tmp_path / "int8.onnx")
    found = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node if "Attention" in node.op_type]
    assert sorted(found) == kinds
    with get_backend("onnxruntime").open(tmp_path / "int8.onnx", threads=1, settings={}) as session:
        assert all(kernel.integer for kernel in session.linear_kernels())
        near(session.infer(IMAGES), expected)


def near(found, expected):
    """Say whether answers are those of INT8: other tokens may be merged, with random weights and in integers."""
    error = np.abs(found - expected).max(axis=1) / np.abs(expected).max()
    assert np.median(error) < 0.15, error


def test_openvino_keeps_attention_in_one_kernel_with_integers(tmp_path, optimized):
    path, plan, expected = optimized(2, "asymmetric")
    emit(path, plan, "openvino", tmp_path / "int8.onnx")
    with get_backend("openvino").open(tmp_path / "int8.onnx", threads=1, settings={}) as session:
        near(session.infer(IMAGES), expected)
        assert session.integer_products() == {f"blocks.{block}.attn.matmul" for block in range(4)}
        nodes = [node.get_rt_info() for node in session._compiled.get_runtime_model().get_ordered_ops()]
    infos = [
        {key: str(info[key].astype(str)) for key in ("layerType", "primitiveType", "originalLayersNames")}
        for info in nodes
    ]
    assert "Softmax" not in {info["layerType"] for info in infos}
    kernels = [info["primitiveType"] for info in infos if "attn.softmax" in info["originalLayersNames"]]
    assert len(kernels) == 4
    assert all(kernel.endswith(("i8", "I8")) for kernel in kernels), kernels


def test_openvino_multiplies_nothing_in_integers_that_is_float(tmp_path, exported_vit):
    emit_float32(merged(exported_vit(spec(2)), tmp_path / "merged.onnx"), "openvino", tmp_path / "float32.onnx")
    with get_backend("openvino").open(tmp_path / "float32.onnx", threads=1, settings={}) as session:
        assert session.integer_products() == frozenset()


@needs_rtx
def test_tensorrt_keeps_attention_in_one_kernel(tmp_path, optimized):
    path, plan, _ = optimized(2, "symmetric")
    emit(path, plan, "tensorrt", tmp_path / "int8.onnx")
    assert lint(tmp_path / "int8.onnx", "tensorrt") == []
    _, report = compiled(tmp_path / "int8.onnx")
    assert [attention.fused for attention in report.attentions] == ["float16"] * 4
    assert {linear.kernel for linear in report.linears} == {"gemm int8"}
    assert report.warnings == ()


def test_attention_in_int8_stays_float_where_sizes_are_added_for_tensorrt(tmp_path, optimized):
    path, plan, expected = optimized(2, "symmetric")
    kept = emit(path, plan, "tensorrt", tmp_path / "int8.onnx", attention="quantized")
    assert kept.keys() == {"blocks.2.attn", "blocks.3.attn"}
    assert all("sizes of merged tokens" in reason for reason in kept.values())
    assert lint(tmp_path / "int8.onnx", "tensorrt") == []
    near(run(tmp_path / "int8.onnx"), expected)
