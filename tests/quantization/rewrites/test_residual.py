import numpy as np
import onnxruntime
import pytest
from onnx_files import emit, optimize_files
from onnx_ir.passes import common

from edgevit.backends import get_backend
from edgevit.graph.linears import find_linears, load_graph
from edgevit.graph.saving import save
from edgevit.quantization.emit import emit as emit_in_memory
from edgevit.quantization.emit import scheme_of
from edgevit.quantization.float_fallback import revert_to_float
from edgevit.quantization.kernel_check import check_kernels
from edgevit.quantization.ptq import CalibrationImages
from edgevit.quantization.rewrites.residual import (
    add_residual_matmul,
    ending_layers,
    ends_mlp,
    find_residuals,
    prune_residuals,
    sees_token,
)
from edgevit.recipes import NO_REWRITES, Rewrites

FIRST = ["blocks.0.attn.proj", "blocks.0.mlp.fc2"]


def run(path, images):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


def test_the_layers_that_end_an_attention_or_mlp(quantized):
    graph = load_graph(quantized.path).graph
    names = [layer.name for layer in ending_layers(graph)]
    assert names[:3] == [*FIRST, "blocks.1.attn.proj"]


@pytest.mark.parametrize("token", [None, 0, 1])
def test_the_rest_changes_no_logits(quantized, tmp_path, token):
    model = load_graph(quantized.path)
    common.ShapeInferencePass()(model)
    plan = {linear.name: linear.quantization for linear in quantized.plan.linears}
    for layer in ending_layers(model.graph)[:4]:
        assert token is None or sees_token(layer, token)
        add_residual_matmul(model.graph, layer, plan[layer.name], token)
    save(model, tmp_path / "fine.onnx")
    names = [layer.name for layer in find_linears(load_graph(tmp_path / "fine.onnx").graph)]
    assert [name for name in names if name.endswith(".residual")] == [
        f"blocks.{block}.{layer}.residual" for block in (0, 1) for layer in ("attn.proj", "mlp.fc2")
    ]
    np.testing.assert_allclose(
        run(tmp_path / "fine.onnx", quantized.images), run(quantized.path, quantized.images), atol=1e-5
    )


@pytest.mark.parametrize("token", [None, 0])
def test_what_has_a_rest_is_found_and_ends_what_it_ended(quantized, token):
    model = load_graph(quantized.path)
    common.ShapeInferencePass()(model)
    plan = {linear.name: linear.quantization for linear in quantized.plan.linears}
    ending = ending_layers(model.graph)
    assert [ends_mlp(layer) for layer in ending] == [False, True] * 2
    assert find_residuals(model.graph) == []
    for layer in ending[:2]:
        add_residual_matmul(model.graph, layer, plan[layer.name], token)
    found = find_residuals(model.graph)
    assert [rest.layer.name for rest in found] == FIRST
    assert [rest.of_token for rest in found] == [token is not None] * 2
    assert [ends_mlp(rest.layer) for rest in found] == [False, True]


def test_what_is_kept_stays(quantized):
    model = load_graph(quantized.path)
    common.ShapeInferencePass()(model)
    plan = {linear.name: linear.quantization for linear in quantized.plan.linears}
    for layer in ending_layers(model.graph)[:2]:
        add_residual_matmul(model.graph, layer, plan[layer.name])
    assert prune_residuals(model.graph, {FIRST[1]}) == (f"{FIRST[0]}.residual",)
    assert [rest.layer.name for rest in find_residuals(model.graph)] == FIRST[1:]


def test_what_is_dropped_leaves_the_model_as_it_was(quantized, tmp_path):
    model = load_graph(quantized.path)
    common.ShapeInferencePass()(model)
    plan = {linear.name: linear.quantization for linear in quantized.plan.linears}
    layers = ending_layers(model.graph)
    add_residual_matmul(model.graph, layers[0], plan[layers[0].name])
    add_residual_matmul(model.graph, layers[1], plan[layers[1].name], 0)
    assert set(prune_residuals(model.graph)) == {f"{layer.name}.residual" for layer in layers[:2]}
    save(model, tmp_path / "dropped.onnx")
    before, after = load_graph(quantized.path).graph, load_graph(tmp_path / "dropped.onnx").graph
    assert sorted(node.op_type for node in after) == sorted(node.op_type for node in before)
    np.testing.assert_array_equal(
        run(tmp_path / "dropped.onnx", quantized.images), run(quantized.path, quantized.images)
    )
    assert prune_residuals(after) == ()


def test_a_token_that_is_not_there_is_not_seen(quantized):
    model = load_graph(quantized.path)
    common.ShapeInferencePass()(model)
    first = find_linears(model.graph)[0]
    tokens = first.input.shape[1]
    assert [sees_token(first, token) for token in (-1, 0, tokens - 1, tokens)] == [False, True, True, False]
    assert not sees_token(find_linears(model.graph)[-1], 0)  # the head's input has no axis of tokens


@pytest.mark.parametrize(("dialect", "backend"), [("onnxruntime",) * 2, ("openvino",) * 2, ("portable", "onnxruntime")])
@pytest.mark.parametrize(
    ("rewrites", "rests"),
    [
        (Rewrites(residual_layers=1.0), [*FIRST, "blocks.1.attn.proj", "blocks.1.mlp.fc2"]),
        (
            Rewrites(residual_token_layers=1.0),
            ["blocks.0.mlp.fc2", "blocks.1.attn.proj", "blocks.1.mlp.fc1", "blocks.1.mlp.fc2", "head"],
        ),
    ],
    ids=["all tokens", "one token"],
)
def test_layers_with_a_rest_err_less_and_both_products_run_in_integers(
    quantized, tmp_path, dialect, backend, rewrites, rests
):
    images = CalibrationImages(lambda: iter([quantized.images]), 1)
    exact = run(quantized.path, quantized.images)
    scheme, engine, errors = scheme_of(dialect), get_backend(backend), []
    for number, asked in enumerate((NO_REWRITES, rewrites)):
        places = {scheme: tmp_path / f"{number}.onnx"}
        one = optimize_files(quantized.path, images, places, rewrites=asked)[1][scheme]
        emit(one.model, one.plan, dialect, tmp_path / "int8.onnx")
        built = engine.build(tmp_path / "int8.onnx", tmp_path / str(number))[0]
        with engine.open(built, threads=1, settings={}) as session:
            kernels = check_kernels(session, one.plan.integer_layers())
            found = session.infer(quantized.images)
        errors.append(((found - exact) ** 2).mean())
        # An engine may round a value to the next integer; but a row that lands on all tokens, as OpenVINO's does where
        # a mask puts it in its place, is far beyond that.
        elsewhere = run(tmp_path / "int8.onnx", quantized.images)
        assert ((found - elsewhere) ** 2).mean() < errors[-1]
        assert kernels.float_linears == ()
        assert one.plan.integer_layers() == tuple(quantized.optimized_layers(scheme))
    assert [linear.layer for linear in one.plan.linears if linear.layer is not None] == rests
    assert not [name for name in load_graph(tmp_path / "int8.onnx").graph.initializers if ".residual.weight" in name]
    assert errors[1] < errors[0]


def test_a_layer_that_goes_back_to_float_takes_its_rest_along(quantized, tmp_path):
    images = CalibrationImages(lambda: iter([quantized.images]), 1)
    places, rewrites = {"asymmetric": tmp_path / "m.onnx"}, Rewrites(residual_token_layers=1.0)
    one = optimize_files(quantized.path, images, places, rewrites=rewrites)[1]["asymmetric"]
    back = revert_to_float(one.ptq, dict.fromkeys(one.plan.integer_layers(), "asked for"))
    emit_in_memory(back, "onnxruntime", tmp_path / "all-float.onnx")
    np.testing.assert_allclose(
        run(tmp_path / "all-float.onnx", quantized.images), run(quantized.path, quantized.images), atol=1e-4
    )
