"""The whole way of a model without classes, on the smallest one."""

import json

import numpy as np
import pytest
from tiny import SHAPES, SPEC, VARIANTS

from edgevit.bundle.store import Bundle
from edgevit.data.shapes import load_shapes
from edgevit.runtime import load

SIMILARITY_KEYS = {
    *("cosine_mean", "cosine_p1", "cosine_between", "recall_at_1", "recall_at_1_ci95", "delta_recall_at_1"),
    "min_cosine",
}


def test_quantizing_reaches_integer_kernels_in_every_linear_layer(embedding):
    for variant in Bundle.open(embedding).manifest.variants[1:]:
        linears = 4 * SPEC.depth  # no head; in INT8 the patch embedding, too
        expected = (linears + 1, linears + 1) if variant.precision == "int8" else (linears, 0)
        assert (variant.kernels.linears, variant.kernels.integer_linears) == expected


def test_build(edgevit, embedding):
    done = edgevit("build", embedding, "--target", "x86-openvino", "--precision", "int8", "--json")
    assert done.code == 0
    assert done.data()["variants"][0]["kernels"]["integer_linears"] == 4 * SPEC.depth + 1


def test_validate_compares_features(edgevit, embedding):
    done = edgevit("validate", embedding, "--data", SHAPES, "--min-cosine", "0.9", "--json")
    assert done.code == 0, done.err
    said = {variant["name"]: variant for variant in done.data()["variants"]}
    assert tuple(said) == VARIANTS
    with load(embedding, variant="float32") as float32, load(embedding, variant="int8-onnxruntime") as int8:
        shapes = load_shapes("test", SHAPES.partition(":")[2])
        images = [shapes.image(index) for index in range(96)]
        before, after = float32.embed_batch(images), int8.embed_batch(images)
    assert np.allclose(np.linalg.norm(before, axis=1), 1, atol=1e-5)
    found = said["int8-onnxruntime"]
    similarity = found["similarity"]
    assert similarity.keys() == SIMILARITY_KEYS
    cosines = (before * after).sum(axis=1)
    assert similarity["cosine_mean"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert similarity["cosine_p1"] == pytest.approx(np.percentile(cosines, 1), abs=1e-5)
    assert (found["images"], found["top1"], found["kl"], found["max_drop"]) == (96, None, None, None)
    assert found["sqnr_db"] > 10
    assert found["agreement"] > 0.5
    assert 0 < similarity["recall_at_1"] <= 1
    reference = said["float32"]
    assert (reference["agreement"], reference["similarity"]["delta_recall_at_1"]) == (1, 0)
    assert Bundle.open(embedding).variant("int8-onnxruntime").accuracy.similarity.cosine_mean == pytest.approx(
        similarity["cosine_mean"]
    )


def test_the_gate_is_the_cosine(edgevit, embedding):
    done = edgevit("validate", embedding, "--data", SHAPES, "--min-cosine", "1")
    assert done.code == 1
    assert "at least 1 wanted" in done.out
    assert "recall@1" in done.out
    assert edgevit("predict", embedding, "absent.png").code == 2
    passed = {variant.name: variant.accuracy.passed for variant in Bundle.open(embedding).manifest.variants}
    assert passed == {name: name.startswith("float32") for name in VARIANTS}


def test_images_without_labels_have_no_recall(edgevit, embedding, pictures):
    images = pictures[0].with_name("list.csv")
    images.write_text("path\n" + "".join(f"{path.name}\n" for path in pictures))
    done = edgevit("validate", embedding, "--data", images, "--variant", "float32", "--json")
    assert done.code == 0
    (variant,) = done.data()["variants"]
    assert variant["similarity"]["recall_at_1"] is None
    assert (variant["agreement"], variant["images"]) == (1, 2)


def test_each_kind_of_model_has_its_own_limit(edgevit, embedding, tiny_exported):
    message, remedy = edgevit("validate", embedding, "--data", SHAPES, "--max-drop", "1").failure()
    assert "--max-drop is for classifiers" in message
    assert "--min-cosine" in remedy
    message, remedy = edgevit("validate", tiny_exported, "--data", SHAPES, "--min-cosine", "0.9").failure()
    assert "this one has 8 classes" in message
    assert "--max-drop" in remedy


def test_benchmark_report_and_inspect(edgevit, embedding):
    assert edgevit("validate", embedding, "--data", SHAPES, "--min-cosine", "0.9").code == 0
    timed = edgevit("benchmark", embedding, "--duration", "0.02", "--threads", "1", "--json")
    assert timed.code == 0
    assert all(variant["p50_ms"] > 0 for variant in timed.data()["variants"])
    assert edgevit("report", embedding).code == 0
    page = (embedding / "report/index.html").read_text()
    assert "Recall@1" in page
    assert "Top-1" not in page
    data = json.loads((embedding / "report/report.json").read_bytes())
    assert data["accuracy_axis"] == "agreement"
    assert data["variants"][1]["accuracy"]["similarity"].keys() == SIMILARITY_KEYS
    shown = edgevit("inspect", embedding).out
    assert "an embedding of 32 features" in shown
    assert "cosine" in shown


def test_predict_gives_the_features(edgevit, embedding, pictures):
    done = edgevit("predict", embedding, *pictures, "--variant", "float32", "--json")
    assert done.code == 0
    said = done.data()
    with load(embedding, variant="float32") as model:
        expected = model.embed_batch(pictures)
    assert [image["path"] for image in said["images"]] == [str(path) for path in pictures]
    np.testing.assert_allclose([image["embedding"] for image in said["images"]], expected, atol=1e-6)
    text = edgevit("predict", embedding, pictures[0], "--variant", "float32").out
    assert "32 features of length 1" in text


def test_pipeline(edgevit, tmp_path, tiny_embedding_checkpoint):
    path = tmp_path / "whole.edgevit"
    arguments = ("pipeline", tiny_embedding_checkpoint, "--data", SHAPES, "-o", path, "--target", "x86-onnxruntime")
    refused = edgevit(*arguments, "--max-drop", "1")
    assert refused.code == 2
    assert "--min-cosine" in refused.failure()[1]
    assert not path.exists()
    done = edgevit(*arguments, "--duration", "0.02", "--l2-normalize", "--min-cosine", "0.9", "--json")
    assert done.code == 0, done.err
    for variant in done.data()["variants"]:
        assert variant["accuracy"]["similarity"]["cosine_mean"] > 0.9
        assert variant["latency"]["p50_ms"] > 0
    manifest = Bundle.open(path).manifest
    assert manifest.spec.l2_normalize
    assert manifest.name == "whole"
