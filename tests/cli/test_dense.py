"""The whole way of a model that gives tokens, features and logits, on the smallest one."""

import json

import numpy as np
import pytest
from tiny import SHAPES, SPEC, VARIANTS

from edgevit.bundle.store import Bundle
from edgevit.data.shapes import load_shapes
from edgevit.errors import InputError
from edgevit.runtime import load

NAMES = ("tokens", "block_0", "logits")


@pytest.fixture(scope="module")
def images():
    shapes = load_shapes("test", "size=16,count=6")
    return [shapes.image(index) for index in range(6)]


def test_the_manifest_names_and_types_outputs(dense):
    manifest = Bundle.open(dense).manifest
    assert [(output.name, output.kind, output.shape, output.dims) for output in manifest.typed_outputs] == [
        ("tokens", "tokens", (16, 32), ("patches", "width")),
        ("block_0", "features", (32, 4, 4), ("width", "rows", "columns")),
        ("logits", "logits", (8,), ("classes",)),
    ]
    assert (manifest.labels, manifest.classes, manifest.width) == ((), 0, 16 * 32 + 32 * 4 * 4 + 8)
    assert tuple(variant.name for variant in manifest.variants) == VARIANTS


def test_other_bundles_say_nothing_of_outputs(tiny_exported):
    assert "outputs" not in json.loads((tiny_exported / "manifest.json").read_bytes())


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_engine_gives_the_models_outputs(dense, tiny_checkpoint, images, variant):
    import torch

    from edgevit.models.loading import load_checkpoint

    model = load_checkpoint(str(tiny_checkpoint)).model()
    with load(dense, variant=variant) as loaded:
        assert loaded.output_names == NAMES
        found = loaded.outputs_batch(images)
        given = torch.from_numpy(loaded.prepare(images))
        assert np.array_equal(loaded.tokens(images[1]), loaded.outputs(images[1])["tokens"])
        assert np.allclose(loaded.tokens_batch(images), found["tokens"], atol=0.1)
    with torch.inference_mode():
        tokens = model.forward_features(given)[:, 1:].numpy()
        first = model.norm(model.forward_blocks(given, (0,))[0])[:, 1:].transpose(1, 2).reshape(-1, 32, 4, 4).numpy()
        expected = {"tokens": tokens, "block_0": first, "logits": model(given).numpy()}
    for name, values in expected.items():
        assert found[name].shape == values.shape
        scale = np.abs(values).max()
        assert np.abs(found[name] - values).max() < (1e-4 if "float32" in variant else 0.2) * scale
        assert np.linalg.norm(found[name] - values) < 0.1 * np.linalg.norm(values)


def changed(bundle, change):
    """Change what the manifest of a bundle says of its outputs, and leave float32 alone in it."""
    data = json.loads((bundle / "manifest.json").read_bytes())
    data["variants"] = data["variants"][:1]
    for output in data["outputs"]:
        change(output)
    (bundle / "manifest.json").write_text(json.dumps(data))
    return bundle


def test_the_logits_among_outputs_keep_the_labels_of_the_checkpoint(edgevit, tiny_dense, tiny_exported, pictures):
    labels = load_shapes("train").class_names
    assert [output.labels for output in Bundle.open(tiny_dense).manifest.typed_outputs] == [(), (), labels]
    with load(tiny_exported, variant="float32") as alone, load(tiny_dense, variant="float32") as model:
        assert model.labels == alone.labels == labels
        expected, found = alone.predict_batch(pictures, top=3), model.predict_batch(pictures, top=3)
    assert [[each.label for each in one] for one in found] == [[each.label for each in one] for one in expected]
    both = [[each.probability for answers in some for each in answers] for some in (expected, found)]
    assert both[0] == pytest.approx(both[1], abs=1e-5)
    done = edgevit("predict", tiny_dense, *pictures, "--variant", "float32", "--top", "3", "--json")
    for answer, predictions in zip(done.data()["images"], expected, strict=True):
        assert [each["label"] for each in answer["predictions"]] == [each.label for each in predictions]
        assert set(answer["outputs"]) == set(NAMES)
    shown = edgevit("predict", tiny_dense, pictures[0], "--variant", "float32").out
    assert "tokens: 16x32, " in shown
    assert f"{expected[0][0].probability:6.1%}  {expected[0][0].label}" in shown
    assert "output logits: logits (classes 8), labels " in edgevit("inspect", tiny_dense).out
    refused = edgevit("predict", tiny_dense, pictures[0], "--threshold", "0.5")
    assert "chooses one of its classes, by no threshold" in refused.failure()[0]


def test_logits_that_decide_by_themselves(edgevit, dense, pictures):
    changed(dense, lambda output: output.update({"activation": "sigmoid"} if output["kind"] == "logits" else {}))
    done = edgevit("predict", dense, pictures[0], "--json", "--threshold", "0.9", "--top", "8")
    with load(dense) as model:
        logits = model.outputs(pictures[0])["logits"]
    for each in done.data()["images"][0]["predictions"]:
        assert each["probability"] == pytest.approx(1 / (1 + np.exp(-float(logits[each["index"]]))), abs=1e-6)
        assert each["decided"] == (each["probability"] > 0.9)


def test_a_threshold_needs_labels(edgevit, dense, tiny_embedding, pictures):
    for bundle, gives in (
        (tiny_embedding, "features"),
        (changed(dense, lambda output: output.pop("labels", None)), ", ".join(NAMES)),
    ):
        done = edgevit("predict", bundle, *pictures, "--threshold", "0.9")
        message, remedy = done.failure()
        assert (done.code, gives in message) == (2, True)
        assert "leave the threshold out" in remedy


def test_what_a_dense_model_does_not_answer(dense, tiny_embedding, tiny_exported, images):
    with load(changed(dense, lambda output: output.pop("labels", None)), variant="float32") as model:
        with pytest.raises(InputError, match="no classes") as caught:
            model.predict(images[0])
        assert "tokens() or outputs()" in caught.value.remedy
        with pytest.raises(InputError, match="not one embedding"):
            model.embed(images[0])
    with load(tiny_embedding, variant="float32") as model:
        with pytest.raises(InputError, match="gives embedding, no tokens") as caught:
            model.tokens(images[0])
        assert "embed()" in caught.value.remedy
        assert np.array_equal(model.outputs(images[0])["embedding"], model.embed(images[0]))
    with load(tiny_exported, variant="float32") as model:
        assert model.output_names == ("logits",)
        with pytest.raises(InputError, match="no tokens"):
            model.tokens(images[0])


def test_all_layers_run_in_integers_and_no_token_is_left_out(dense):
    for variant in Bundle.open(dense).manifest.variants[1:]:
        whole = 4 * SPEC.depth
        assert variant.kernels.linears == whole + 1 + (variant.precision == "int8")
        assert not variant.kernels.integer_linears or variant.kernels.integer_linears >= whole


def test_validate_measures_each_output(edgevit, dense):
    done = edgevit("validate", dense, "--data", SHAPES, "--max-drop", "20", "--json")
    assert done.code == 0, done.err
    said = {variant["name"]: variant for variant in done.data()["variants"]}
    assert tuple(said) == VARIANTS
    assert [output["kind"] for output in said["float32"]["outputs"]] == ["tokens", "features", "logits"]
    shapes = load_shapes("test", SHAPES.partition(":")[2])
    pictures = [shapes.image(index) for index in range(96)]
    with load(dense, variant="float32") as float32, load(dense, variant="int8-onnxruntime") as int8:
        before, after = float32.outputs_batch(pictures), int8.outputs_batch(pictures)
    tokens, _, logits = said["int8-onnxruntime"]["outputs"]
    one, other = (each["tokens"].astype(np.float64).reshape(-1, 32) for each in (before, after))
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert tokens["cosine_mean"] == pytest.approx(cosines.mean(), abs=1e-4)
    assert tokens["cosine_p1"] == pytest.approx(np.percentile(cosines, 1), abs=1e-3)
    same = (before["logits"].argmax(1) == after["logits"].argmax(1)).mean()
    assert logits["agreement"] == pytest.approx(same, abs=0.02)
    noisy = min(output["sqnr_db"] for output in said["int8-onnxruntime"]["outputs"])
    assert said["int8-onnxruntime"]["sqnr_db"] == pytest.approx(noisy)
    text = edgevit("inspect", dense).out
    assert "output tokens: tokens (patches 16, width 32), after the last norm" in text
    assert "int8-onnxruntime: tokens: cosine" in text


def test_a_gate_that_fails(edgevit, dense):
    done = edgevit("validate", dense, "--data", SHAPES, "--min-cosine", "1", "--max-drop", "100", "--json")
    assert done.code == 1
    said = {variant["name"]: variant for variant in done.data()["variants"]}
    assert said["float32"]["passed"]
    assert "tokens: mean cosine" in said["int8-openvino"]["reason"]
    done = edgevit("validate", dense, "--data", SHAPES, "--min-miou", "0.9")
    assert done.code == 2
    assert "--min-miou decides on none of the model's outputs" in done.err


def test_quantizing_within_a_limit(edgevit, dense):
    done = edgevit("quantize", dense, "--data", SHAPES, "--dialect", "onnxruntime", "--min-cosine", "0.9999")
    assert done.code in (0, 1), done.err
    limit = Bundle.open(dense).variant("int8-onnxruntime").limit
    assert "cosine" in limit.reason
    assert limit.images


def test_a_limit_on_the_logits_among_outputs(edgevit, dense, tmp_path):
    quantize = ("quantize", dense, "--data", SHAPES, "--dialect", "onnxruntime")
    assert edgevit(*quantize, "--max-kl", "1").code == 0
    limit = Bundle.open(dense).variant("int8-onnxruntime").limit
    assert limit.passed
    assert "KL is 0.0" in limit.reason
    (tmp_path / "own.toml").write_text('description = "d"\nsamples = 16\nmax_kl = 0.9\n')
    assert edgevit(*quantize, "--recipe", tmp_path / "own.toml").code == 0
    assert "0.9 allowed" in Bundle.open(dense).variant("int8-onnxruntime").limit.reason
    done = edgevit(*quantize, "--max-drop", "1")
    assert (done.code, "--max-kl" in done.failure()[1]) == (2, True)
    done = edgevit(*quantize, "--max-kl", "1", "--min-cosine", "0.9")
    assert (done.code, "one limit" in done.failure()[0]) == (2, True)


def test_predict_shows_and_writes_outputs(edgevit, dense, pictures, tmp_path):
    done = edgevit("predict", dense, *pictures, "-o", tmp_path / "out.npz", "--json", "--variant", "float32")
    assert done.code == 0, done.err
    assert done.data()["images"][1]["outputs"]["block_0"]["shape"] == [32, 4, 4]
    written = np.load(tmp_path / "out.npz")
    with load(dense, variant="float32") as model:
        given = model.outputs_batch(pictures)
    for name in NAMES:
        assert np.allclose(written[name], given[name], atol=1e-5)
    assert written["images"].tolist() == [str(path) for path in pictures]
    assert "tokens: 16x32, " in edgevit("predict", dense, pictures[0]).out
    assert edgevit("predict", dense, pictures[0], "-o", tmp_path / "out.txt").code == 2


def test_outputs_may_be_called_as_what_predict_writes_with(edgevit, dense, pictures, tmp_path):
    names = {"tokens": "file", "block_0": "allow_pickle", "logits": "label"}
    with load(dense, variant="float32") as model:
        given = model.outputs_batch(pictures)
    changed(dense, lambda output: output.update(name=names[output["name"]]))
    done = edgevit("predict", dense, *pictures, "-o", tmp_path / "out.npz", "--json")
    assert done.code == 0, done.err
    assert set(done.data()["images"][0]["outputs"]) == set(names.values())
    written = np.load(tmp_path / "out.npz")
    assert sorted(written.files) == sorted(["images", *names.values()])
    for before, now in names.items():
        assert np.allclose(given[before], written[now], atol=1e-5)
    assert written["images"].tolist() == [str(path) for path in pictures]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ({"tokens": "images"}, "numpy.load takes images for the paths of the images"),
        ({"tokens": "x", "logits": "x.npy"}, "numpy.load takes x.npy for the output x"),
        ({"tokens": "../x"}, "it would be a path"),
    ],
)
def test_outputs_that_could_not_be_told_apart_are_not_written(edgevit, dense, pictures, tmp_path, names, why):
    changed(dense, lambda output: output.update(name=names.get(output["name"], output["name"])))
    done = edgevit("predict", dense, pictures[0], "-o", tmp_path / "a.npz")
    assert done.code == 2
    assert why in done.failure()[0]
    assert not (tmp_path / "a.npz").exists()
    assert edgevit("predict", dense, pictures[0]).code == 0


def test_the_report_shows_outputs(edgevit, dense, tmp_path):
    assert edgevit("validate", dense, "--data", SHAPES, "--max-drop", "20").code == 0
    assert edgevit("benchmark", dense, "--duration", "0.02").code == 0
    assert edgevit("report", dense, "-o", tmp_path / "report").code == 0
    data = json.loads((tmp_path / "report" / "report.json").read_bytes())
    assert data["accuracy_axis"] == "cosine"
    assert [output["name"] for output in data["outputs"]] == list(NAMES)
    page = (tmp_path / "report" / "index.html").read_text("utf-8")
    assert "int8-openvino: block_0: cosine" in page


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--output", "tokens"], "-o takes one bundle to make, not none"),
        (["-o", "a.edgevit", "-o", "b.edgevit"], "not a.edgevit and b.edgevit"),
        (["-o", "a.edgevit", "-o", "blocks=2"], "there is no block 2"),
        (["-o", "a.edgevit", "-o", "tokens", "--check-with", "timm"], "check_with compares logits or features"),
    ],
)
def test_bad_input(edgevit, tiny_checkpoint, tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    done = edgevit("export", tiny_checkpoint, *given)
    assert done.code == 2
    assert message in done.err
    assert not list(tmp_path.iterdir())


def test_outputs_of_a_checkpoint_are_not_those_of_a_file(edgevit, exported, tmp_path):
    file = exported / "float32" / "model.onnx"
    done = edgevit("export", file, "-o", tmp_path / "a.edgevit", "--output", "tokens")
    assert done.code == 2
    assert "--onnx-output NAME" in done.err


def test_the_bundles_own_file_is_taken_again(edgevit, dense, tmp_path):
    done = edgevit("export", dense / "float32" / "model.onnx", "-o", tmp_path / "again.edgevit", "--data", SHAPES)
    assert done.code == 0, done.err
    manifests = [Bundle.open(path).manifest for path in (dense, tmp_path / "again.edgevit")]
    assert manifests[0].typed_outputs == manifests[1].typed_outputs
    assert manifests[0].preprocess == manifests[1].preprocess


def test_tensorrt_is_refused_by_name(edgevit, dense):
    done = edgevit("quantize", dense, "--data", SHAPES, "--dialect", "tensorrt")
    assert done.code == 2
    assert "tensorrt is built here for one row of numbers" in done.err
    assert "--dialect portable" in done.err


def test_the_portable_form_gives_the_same(edgevit, dense, images):
    assert edgevit("quantize", dense, "--data", SHAPES, "--dialect", "portable").code == 0
    with load(dense, variant="int8-portable") as portable, load(dense, variant="float32") as float32:
        found, expected = portable.outputs_batch(images), float32.outputs_batch(images)
    for name in NAMES:
        assert np.linalg.norm(found[name] - expected[name]) < 0.1 * np.linalg.norm(expected[name])
