"""A prepared model: the same function in float32, and nearer to it in integers."""

import gc
import weakref

import numpy as np
import onnx
import onnxruntime
import pytest

from edgevit.errors import BundleError, DataError, GraphError, VerificationError
from edgevit.files import sha256_of
from edgevit.graph import linears
from edgevit.graph.linears import find_linears, load_graph
from edgevit.quantization import ptq as module
from edgevit.quantization.emit import DIALECTS as ALL_DIALECTS
from edgevit.quantization.emit import emit, emit_float32, scheme_of
from edgevit.quantization.ptq import CalibrationImages, prepare
from edgevit.quantization.rewrites.apply import centre, smooth
from edgevit.recipes import load_recipe

SCHEMES = ("asymmetric", "symmetric")
DIALECTS = {"asymmetric": "openvino", "symmetric": "portable"}  # one of each


def calibration(images):
    return CalibrationImages(lambda: iter([images[:8], images[8:]]), 2)


def run(path, images):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


@pytest.fixture(scope="module")
def prepared(quantized, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    places = {scheme: folder / f"{scheme}.onnx" for scheme in SCHEMES}
    return prepare(quantized.path, calibration(quantized.images), places)


def test_rewriting_changes_no_logits(quantized, tmp_path):
    table = smooth(quantized.path, quantized.table, tmp_path / "smoothed.onnx")
    centre(tmp_path / "smoothed.onnx", table, tmp_path / "centred.onnx", "minmax")
    before = run(quantized.path, quantized.images)
    for name in ("smoothed", "centred"):
        assert sha256_of(tmp_path / f"{name}.onnx") != sha256_of(quantized.path)
        np.testing.assert_allclose(run(tmp_path / f"{name}.onnx", quantized.images), before, atol=1e-4)


def test_ranges_hold_what_the_rewritten_layers_read(quantized, tmp_path):
    """A second calibration, of the rewritten model, stays within the ranges that were foretold."""
    foretold = smooth(quantized.path, quantized.table, tmp_path / "smoothed.onnx")
    foretold = centre(tmp_path / "smoothed.onnx", foretold, tmp_path / "centred.onnx", "minmax")
    assert foretold.images == len(quantized.images)
    engine = module.ObservedModel(tmp_path / "centred.onnx")
    for image in quantized.images:
        for name, values in zip(engine.layers, engine.run(image[None]), strict=True):
            statistics = foretold.inputs[name]
            assert statistics.minimum - 1e-4 <= values.min() <= values.max() <= statistics.maximum + 1e-4


def test_every_layer_is_planned_and_its_weight_lies_on_the_grid(quantized, prepared):
    _, models = prepared
    for scheme, one in models.items():
        one.plan.check_scheme(scheme)
        one.plan.check_model(one.model)
        one.plan.check_source(quantized.path)
        assert one.plan.integer_layers() == tuple(quantized.prepared_layers(scheme))
        layers = {layer.name: layer for layer in find_linears(load_graph(one.model).graph)}
        for linear in one.plan.linears:
            steps = layers[linear.name].weight / np.array(linear.quantization.weight_scales, dtype=np.float32)
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
            assert np.abs(steps).max() <= 127.01


def test_one_sided_inputs_are_centred_for_signed_integers_only(prepared):
    _, models = prepared
    added = {
        scheme: [layer.name for layer in find_linears(load_graph(one.model).graph) if _is_centred(layer)]
        for scheme, one in models.items()
    }
    assert added["asymmetric"] == []
    assert set(added["symmetric"]) <= {"blocks.0.mlp.fc2", "blocks.1.mlp.fc2"}
    assert added["symmetric"]


def _is_centred(layer):
    producer = layer.input.producer()
    return producer is not None and producer.name == f"{layer.name}.centre"


@pytest.mark.parametrize(("scheme", "dialect"), list(DIALECTS.items()))
def test_integers_are_nearer_to_float32_than_without_preparation(quantized, prepared, tmp_path, scheme, dialect):
    one = prepared[1][scheme]
    emit(one.model, one.plan, dialect, tmp_path / "model.onnx")
    exact = run(quantized.path, quantized.images)
    errors = [
        ((run(path, quantized.images) - exact) ** 2).mean()
        for path in (tmp_path / "model.onnx", quantized.int8[dialect])
    ]
    assert errors[0] < errors[1]


def test_a_plan_of_another_model_is_refused(quantized, prepared, tmp_path):
    _, models = prepared
    other = onnx.load(quantized.path)
    other.doc_string = "another"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(BundleError, match="belongs to another model"):
        models["asymmetric"].plan.check_source(tmp_path / "other.onnx")
    with pytest.raises(BundleError, match="belongs to another model"):
        emit(models["symmetric"].model, models["asymmetric"].plan, "openvino", tmp_path / "model.onnx")


def test_a_rewrite_that_changes_the_logits_is_noticed(quantized, tmp_path, monkeypatch):
    def broken(model, table, path, **rules):
        table = smooth(model, table, path, **rules)
        changed = onnx.load(path)
        next(node for node in changed.graph.node if node.op_type == "Softmax").attribute[0].i = 2
        onnx.save(changed, path)
        return table

    monkeypatch.setattr(module, "smooth", broken)
    with pytest.raises(VerificationError, match="changed its logits"):
        prepare(quantized.path, calibration(quantized.images), {"asymmetric": tmp_path / "model.onnx"})
    assert not (tmp_path / "model.onnx").exists()


def test_one_image_and_constant_images_are_enough(quantized, tmp_path):
    for images in (quantized.images[:1], np.zeros((3, 3, 16, 16), dtype=np.float32)):
        source = CalibrationImages(lambda images=images: iter([images]), 1)
        places = {scheme: tmp_path / f"{scheme}.onnx" for scheme in SCHEMES}
        for scheme, one in prepare(quantized.path, source, places)[1].items():
            assert one.plan.integer_layers() == tuple(quantized.prepared_layers(scheme))
            emit(
                one.model, one.plan, {"asymmetric": "openvino", "symmetric": "portable"}[scheme], tmp_path / "int8.onnx"
            )
            assert np.isfinite(run(tmp_path / "int8.onnx", quantized.images)).all()


def test_no_images(quantized, tmp_path):
    with pytest.raises(DataError, match="no calibration images"):
        prepare(quantized.path, CalibrationImages(lambda: iter([]), 0), {"asymmetric": tmp_path / "model.onnx"})


def test_an_activation_that_is_not_finite_is_named(write_graph, tmp_path):
    path = write_graph(
        "g (float[n, 1, 2, 2] images) => (float[n, 4] logits)"
        "{ x = Reshape(images, shape) [first] a = MatMul(x, w) r = Sqrt(a) [second] logits = MatMul(r, w) }",
        {"w": np.eye(4, dtype=np.float32), "shape": np.array([-1, 4])},
    )
    images = CalibrationImages(lambda: iter([np.full((1, 1, 2, 2), -1, dtype=np.float32)]), 1)
    with pytest.raises(GraphError, match="input of 'second'"):
        prepare(path, images, {"asymmetric": tmp_path / "model.onnx"})


def test_models_of_others_whose_layers_are_gemm_or_lack_a_bias_are_prepared(write_graph, tmp_path):
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
    _, models = prepare(path, source, {scheme: tmp_path / f"{scheme}.onnx" for scheme in SCHEMES})
    exact = run(path, images)
    for scheme, one in models.items():
        assert len(one.plan.integer_layers()) == 2
        emit(one.model, one.plan, DIALECTS[scheme], tmp_path / "int8.onnx")
        assert ((run(tmp_path / "int8.onnx", images) - exact) ** 2).mean() < 1e-3 * (exact**2).mean()


def test_one_model_is_in_memory_at_a_time(quantized, tmp_path, monkeypatch):
    """Whenever a model is read or an engine opened, the one before is gone, whether Python looks for circles or not."""
    opened, held = [], []

    def watched(function, what):
        def watching(*arguments, **options):
            held.extend(name for name, reference in opened if reference() is not None)
            made = function(*arguments, **options)
            opened.append((function.__name__, weakref.ref(what(made))))
            return made

        return watching

    monkeypatch.setattr(linears, "load_graph", watched(load_graph, _a_weight))
    monkeypatch.setattr(onnxruntime, "InferenceSession", watched(onnxruntime.InferenceSession, lambda session: session))
    places = {scheme: tmp_path / f"{scheme}.onnx" for scheme in SCHEMES}
    gc.disable()
    try:
        _, models = prepare(
            quantized.path, calibration(quantized.images), places, rewrites=load_recipe("default").rewrites
        )
        for dialect in ALL_DIALECTS:
            one = models[scheme_of(dialect)]
            emit(one.model, one.plan, dialect, tmp_path / "int8.onnx")
            if dialect != "portable":
                emit_float32(quantized.path, dialect, tmp_path / "float32.onnx")
    finally:
        gc.enable()
    assert len({name for name, _ in opened}) == 2
    assert held == []


def _a_weight(model):
    return model.graph.initializers["blocks.0.mlp.fc1.weight"].const_value.numpy()
