"""A optimized model: the same function in float32, and nearer to it in integers."""

import gc
import weakref

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_files import emit, optimize_files, read, rewritten, verified

from edgevit.errors import BundleError, DataError, GraphError, VerificationError
from edgevit.files import sha256_of
from edgevit.graph.linears import find_linears, load_graph
from edgevit.graph.node_facts import Role, is_marked
from edgevit.graph.weights import let_go
from edgevit.quantization import emit as emit_module
from edgevit.quantization import ptq as module
from edgevit.quantization.ptq import CalibrationImages, PtqModel
from edgevit.quantization.rewrites.passes import FITTING, SMOOTHING
from edgevit.recipes import load_recipe

SCHEMES = ("asymmetric", "symmetric")
DIALECTS = {"asymmetric": "openvino", "symmetric": "portable"}  # one of each
STEPS = {"smoothed": SMOOTHING, "shifted": (*SMOOTHING, *FITTING)}


def calibration(images):
    return CalibrationImages(lambda: iter([images[:8], images[8:]]), 2)


def run(path, images):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


@pytest.fixture(scope="module")
def optimized(quantized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("optimized")
    places = {scheme: folder / f"{scheme}.onnx" for scheme in SCHEMES}
    return optimize_files(quantized.path, calibration(quantized.images), places)


def test_rewriting_changes_no_logits(quantized, tmp_path):
    for name, passes in STEPS.items():
        rewritten(quantized.path, quantized.table, tmp_path / f"{name}.onnx", passes, "symmetric")
    before = run(quantized.path, quantized.images)
    for name in STEPS:
        assert sha256_of(tmp_path / f"{name}.onnx") != sha256_of(quantized.path)
        np.testing.assert_allclose(run(tmp_path / f"{name}.onnx", quantized.images), before, atol=1e-4)


def test_ranges_hold_what_the_rewritten_layers_read(quantized, tmp_path):
    """A second calibration, of the rewritten model, stays within the ranges that were predicted."""
    predicted = rewritten(quantized.path, quantized.table, tmp_path / "shifted.onnx", STEPS["shifted"], "symmetric")
    assert predicted.images == len(quantized.images)
    engine = module.ObservedModel(read(tmp_path / "shifted.onnx"))
    for image in quantized.images:
        for name, values in zip(engine.layers, engine.run(image[None]), strict=True):
            statistics = predicted.inputs[name]
            assert statistics.minimum - 1e-4 <= values.min() <= values.max() <= statistics.maximum + 1e-4


def test_every_layer_is_planned_and_its_weight_lies_on_the_grid(quantized, optimized):
    _, models = optimized
    for scheme, one in models.items():
        one.plan.check_scheme(scheme)
        assert PtqModel.load(verified(one.model), one.model.with_suffix(".json")).plan == one.plan
        one.plan.check_source(sha256_of(quantized.path))
        assert one.plan.integer_layers() == tuple(quantized.optimized_layers(scheme))
        layers = {layer.name: layer for layer in find_linears(load_graph(one.model).graph)}
        for linear in one.plan.linears:
            steps = layers[linear.name].weight / np.array(linear.quantization.weight_scales, dtype=np.float32)
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
            assert np.abs(steps).max() <= 127.01


def test_one_sided_inputs_are_shifted_for_signed_integers_only(optimized):
    _, models = optimized
    added = {
        scheme: [layer.name for layer in find_linears(load_graph(one.model).graph) if _is_shifted(layer)]
        for scheme, one in models.items()
    }
    assert added["asymmetric"] == []
    assert set(added["symmetric"]) <= {"blocks.0.mlp.fc2", "blocks.1.mlp.fc2"}
    assert added["symmetric"]


def _is_shifted(layer):
    return is_marked(layer.input.producer(), Role.SHIFT, layer.name)


@pytest.mark.parametrize(("scheme", "dialect"), list(DIALECTS.items()))
def test_integers_are_nearer_to_float32_than_without_optimization(quantized, optimized, tmp_path, scheme, dialect):
    one = optimized[1][scheme]
    emit(one.model, one.plan, dialect, tmp_path / "model.onnx")
    exact = run(quantized.path, quantized.images)
    errors = [
        ((run(path, quantized.images) - exact) ** 2).mean()
        for path in (tmp_path / "model.onnx", quantized.int8[dialect])
    ]
    assert errors[0] < errors[1]


def test_a_plan_of_another_model_is_refused(quantized, optimized, tmp_path):
    _, models = optimized
    other = onnx.load(quantized.path)
    other.doc_string = "another"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(BundleError, match="belongs to another model"):
        models["asymmetric"].plan.check_source(sha256_of(tmp_path / "other.onnx"))
    with pytest.raises(BundleError, match="belongs to another model"):
        PtqModel.load(verified(models["symmetric"].model), models["asymmetric"].model.with_suffix(".json"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_rewrite_that_changes_the_logits_is_noticed(quantized, tmp_path, monkeypatch, scheme):
    class Broken:
        name = "broken"

        def precondition(self, options):
            return True

        def apply(self, model, ranges, options):
            softmax = next(node for node in model.graph if node.op_type == "Softmax")
            softmax.attributes["axis"] = ir.AttrInt64("axis", 2)

    monkeypatch.setattr(module, "SMOOTHING", (*SMOOTHING, Broken()))
    with pytest.raises(VerificationError, match="changed its answers"):
        optimize_files(quantized.path, calibration(quantized.images), {scheme: tmp_path / "model.onnx"})
    assert not (tmp_path / "model.onnx").exists()


def test_one_image_and_constant_images_are_enough(quantized, tmp_path):
    for images in (quantized.images[:1], np.zeros((3, 3, 16, 16), dtype=np.float32)):
        source = CalibrationImages(lambda images=images: iter([images]), 1)
        places = {scheme: tmp_path / f"{scheme}.onnx" for scheme in SCHEMES}
        for scheme, one in optimize_files(quantized.path, source, places)[1].items():
            assert one.plan.integer_layers() == tuple(quantized.optimized_layers(scheme))
            emit(
                one.model, one.plan, {"asymmetric": "openvino", "symmetric": "portable"}[scheme], tmp_path / "int8.onnx"
            )
            assert np.isfinite(run(tmp_path / "int8.onnx", quantized.images)).all()


def test_no_images(quantized, tmp_path):
    with pytest.raises(DataError, match="no calibration images"):
        optimize_files(quantized.path, CalibrationImages(lambda: iter([]), 0), {"asymmetric": tmp_path / "model.onnx"})


def test_an_activation_that_is_not_finite_is_named(write_graph, tmp_path):
    path = write_graph(
        "g (float[n, 1, 2, 2] images) => (float[n, 4] logits)"
        "{ x = Reshape(images, shape) [first] a = MatMul(x, w) r = Sqrt(a) [second] logits = MatMul(r, w) }",
        {"w": np.eye(4, dtype=np.float32), "shape": np.array([-1, 4])},
    )
    images = CalibrationImages(lambda: iter([np.full((1, 1, 2, 2), -1, dtype=np.float32)]), 1)
    with pytest.raises(GraphError, match="input of 'second'"):
        optimize_files(path, images, {"asymmetric": tmp_path / "model.onnx"})


def test_models_of_others_whose_layers_are_gemm_or_lack_a_bias_are_optimized(write_graph, tmp_path):
    random = np.random.default_rng(0)
    shapes = {"weight": 4, "bias": 4, "w": (4, 4), "b": 4}
    path = write_graph(
        "g (float[n, 4] images) => (float[n, 4] logits)"
        "{ x = LayerNormalization(images, weight, bias) h = Gemm<transB = 1>(x, w, b)"
        "  a = Gelu(h) logits = MatMul(a, w) }",
        {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
    )
    images = random.normal(size=(40, 4)).astype(np.float32)
    source = CalibrationImages(lambda: iter([images]), 1)
    _, models = optimize_files(path, source, {scheme: tmp_path / f"{scheme}.onnx" for scheme in SCHEMES})
    exact = run(path, images)
    for scheme, one in models.items():
        assert len(one.plan.integer_layers()) == 2
        emit(one.model, one.plan, DIALECTS[scheme], tmp_path / "int8.onnx")
        assert ((run(tmp_path / "int8.onnx", images) - exact) ** 2).mean() < 1e-3 * (exact**2).mean()


def test_one_engine_is_in_memory_at_a_time(quantized, tmp_path, monkeypatch):
    """Whenever an engine is opened the one before is gone, whether Python looks for circles or not."""
    opened, held = [], []
    session = onnxruntime.InferenceSession

    def watching(*arguments, **options):
        held.extend(reference for reference in opened if reference() is not None)
        made = session(*arguments, **options)
        opened.append(weakref.ref(made))
        return made

    monkeypatch.setattr(onnxruntime, "InferenceSession", watching)
    places = {scheme: tmp_path / f"{scheme}.onnx" for scheme in SCHEMES}
    gc.disable()
    try:
        optimize_files(quantized.path, calibration(quantized.images), places, rewrites=load_recipe("default").rewrites)
    finally:
        gc.enable()
    assert len(opened) >= 5
    assert held == []


def test_a_model_written_for_an_engine_leaves_nothing_of_it_in_memory(quantized, optimized, tmp_path):
    """Weights of what is written, and of the model that it is made of, are let go of at once."""
    made = []
    own = emit_module.letting_go

    def watching(model):
        made.append(weakref.ref(model.graph.initializers["blocks.0.mlp.fc1.weight"].const_value))
        return own(model)

    one = optimized[1]["asymmetric"]
    again = PtqModel.load(verified(one.model), one.model.with_suffix(".json"))
    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(emit_module, "letting_go", watching)
            emit_module.emit(again, "onnxruntime", tmp_path / "int8.onnx")
        let_go(again.model)
        assert [reference() for reference in made] == [None]
    finally:
        gc.enable()
