"""Which layers keep a second product where each is a kernel, and what becomes of those that TensorRT is given."""

import msgspec
import numpy as np
import onnxruntime
import pytest
from onnx_files import emit, emit_float8, optimize_files, read
from rtx import compiled, needs_rtx

from edgevit.graph.linears import load_graph
from edgevit.models.spec import ModelSpec
from edgevit.quantization.emit import emit as emit_in_memory
from edgevit.quantization.emit.prune_residuals import keep_residuals, most_effective_residuals
from edgevit.quantization.lint.tensorrt_rules import lint
from edgevit.quantization.ptq import CalibrationImages, PtqModel
from edgevit.quantization.rewrites.residual import find_residuals
from edgevit.recipes import NO_REWRITES, Rewrites

SPEC = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=7, heads=2, classes=5)
IMAGES = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
RECIPE = Rewrites(residual_layers=0.08, residual_token_layers=0.8)
PROJ = "blocks.0.attn.proj"
KEPT = {PROJ, "blocks.0.mlp.fc2", "blocks.3.mlp.fc2", "blocks.4.mlp.fc2"}


@pytest.fixture(scope="module")
def make(tmp_path_factory, exported_vit):
    """Return a function that gives a ViT, optimized for signed activations with ``rewrites``; made once."""
    made = {}

    def one(rewrites, spec=SPEC):
        if (rewrites, spec) not in made:
            folder = tmp_path_factory.mktemp("optimized")
            images = CalibrationImages(lambda: iter([IMAGES]), 1)
            places = {"symmetric": folder / "optimized.onnx"}
            made[rewrites, spec] = optimize_files(exported_vit(spec), images, places, rewrites=rewrites)[1]["symmetric"]
        return made[rewrites, spec]

    return one


def rests(path):
    """Return the layers with a second product in a file."""
    products = {str(node.name) for node in load_graph(path).graph if node.op_type == "MatMul"}
    return {name.removesuffix(".residual") for name in products if name.endswith(".residual")}


def run(path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": IMAGES})[0]


@pytest.mark.parametrize(
    ("rewrites", "kept"),
    [
        (RECIPE, KEPT),
        (msgspec.structs.replace(RECIPE, channel_equalization=0.125), KEPT),
        (Rewrites(residual_layers=0.2), {PROJ, "blocks.0.mlp.fc2", "blocks.1.attn.proj", "blocks.1.mlp.fc2"}),
        (Rewrites(residual_token_layers=0.4), {"blocks.5.mlp.fc2"}),
        (Rewrites(residual_token_layers=0.1), set()),  # the last one sees no other token
        (
            Rewrites(residual_layers=1.0),
            {f"blocks.{block}.{end}" for block in range(6) for end in ("attn.proj", "mlp.fc2")},
        ),
        (NO_REWRITES, set()),
    ],
    ids=["default", "equalized", "all tokens", "one token", "last block", "every end", "none"],
)
def test_the_first_layers_and_the_middle_third_of_the_tokens(make, rewrites, kept):
    assert most_effective_residuals(load_graph(make(rewrites).model).graph) == kept


def test_of_a_model_that_reads_all_tokens_none_sees_one_alone(make):
    graph = load_graph(make(RECIPE, msgspec.structs.replace(SPEC, pooling="mean")).model).graph
    assert most_effective_residuals(graph) == {PROJ, "blocks.0.mlp.fc2"}


def test_the_plan_loses_what_the_model_does(make):
    one = make(RECIPE)
    assert len(rests(one.model)) > len(KEPT)
    model = read(one.model)
    plan = keep_residuals(model, one.plan, {PROJ})
    assert [each.layer.name for each in find_residuals(model.graph)] == [PROJ]
    assert [each.layer for each in plan.linears if each.layer is not None] == [PROJ]
    assert plan.integer_layers() == one.plan.integer_layers()
    model = read(one.model)
    assert keep_residuals(model, one.plan, rests(one.model)) == one.plan
    assert {each.layer.name for each in find_residuals(model.graph)} == rests(one.model)


@pytest.mark.parametrize(("dialect", "share"), [("tensorrt", 0.25), ("tensorrt-legacy", 0.01)])
def test_tensorrt_is_given_those_that_are_worth_it_and_they_take_noise_away(make, tmp_path, dialect, share):
    one = make(RECIPE)
    emit(one.model, one.plan, dialect, tmp_path / "int8.onnx")
    assert lint(tmp_path / "int8.onnx", dialect) == []
    assert rests(tmp_path / "int8.onnx") == KEPT
    alone, errors = msgspec.structs.replace(one.plan, linears=tuple(map(only_kept, one.plan.linears))), []
    for kept in ((), KEPT):
        model = read(one.model)
        plan = keep_residuals(model, alone, kept)
        emit_in_memory(PtqModel(model, plan), dialect, tmp_path / "some.onnx")
        assert rests(tmp_path / "some.onnx") == set(kept)
        errors.append(((run(tmp_path / "some.onnx") - run(one.model)) ** 2).mean())
    assert errors[1] < share * errors[0]  # float16 has a noise of its own


def only_kept(linear):
    """Return the plan of a layer as it is in ``KEPT``, or as a rest of one; in float if it is any other."""
    if linear.of not in KEPT:
        return msgspec.structs.replace(linear, quantization=None, fallback="a test")
    uncorrected = msgspec.structs.replace(linear.quantization, bias_correction=())
    return msgspec.structs.replace(linear, quantization=uncorrected)


@pytest.mark.parametrize("attention", ["float", "quantized"])
def test_fp8_has_none(make, tmp_path, attention):
    emit_float8(make(RECIPE).model, make(RECIPE).plan, "tensorrt", tmp_path / "fp8.onnx", attention=attention)
    assert rests(tmp_path / "fp8.onnx") == set()


def test_what_reads_attention_in_int8_has_none(make, tmp_path):
    one, path = make(RECIPE), tmp_path / "int8.onnx"
    assert emit(one.model, one.plan, "tensorrt", path, attention="quantized") == {}
    assert lint(path, "tensorrt") == []
    assert rests(path) == KEPT - {PROJ}
    without = msgspec.structs.replace(one.plan, attentions=one.plan.attentions[1:])
    assert set(emit(one.model, without, "tensorrt", path, attention="quantized")) == {"blocks.0.attn"}
    assert rests(path) == KEPT


@needs_rtx
@pytest.mark.parametrize(("attention", "kind"), [("float", "float16"), ("quantized", "int8")])
def test_each_is_one_kernel_more_in_integers(make, tmp_path, attention, kind):
    counts = []
    for number, rewrites in enumerate((NO_REWRITES, RECIPE)):
        path = tmp_path / f"{number}.onnx"
        emit(make(rewrites).model, make(rewrites).plan, "tensorrt", path, attention=attention)
        _, report = compiled(path)
        assert {linear.kernel for linear in report.linears} == {"gemm int8"}
        assert report.counts.fused_attentions == {kind: SPEC.depth}
        counts.append(report.counts)
    assert counts[1].kernels <= counts[0].kernels + len(rests(path))
    assert counts[1].gemms["int8"] == counts[0].gemms["int8"] + len(rests(path))
