"""Models handed over to phones' engines, by their real tools: what they answer, and what is said of them.

The tools take 1.2 GB, so that no usual installation has them: ``make test-mobile`` installs them and runs these tests.
"""

import json
from typing import NamedTuple

import numpy as np
import pytest
from once import once
from tiny import SHAPES, must_run

from edgevit.bundle.store import Bundle
from edgevit.errors import MissingDependencyError
from edgevit.files import sha256_of
from edgevit.mobile.formats import CONVERTERS
from edgevit.runtime import load

FILES = {"litert": "model.tflite", "executorch": "model.pte", "ncnn": "model.ncnn.param", "coreml": "model.mlpackage"}
RUN_HERE = [name for name in FILES if CONVERTERS[name].runs]

# The tools warn of each other's versions, in this process where it runs what they made.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]


class Handed(NamedTuple):
    """A folder that was handed over, and what its ``edgevit.json`` says."""

    name: str
    path: object
    said: dict

    def answers(self, model, images):
        found = CONVERTERS[self.name]().answers(self.path / model["model"], images)
        return np.stack([np.concatenate([np.reshape(each, -1) for each in outputs]) for outputs in found])


def hand_over(bundle, name, out, *more):
    must_run("pack", bundle, "--format", name, "-o", out, *more)
    return Handed(name, out, json.loads((out / "edgevit.json").read_text()))


def skip_without(name):
    try:
        CONVERTERS[name].check_installed()
    except MissingDependencyError as error:
        pytest.skip(f"{error.message}: make test-mobile brings it")


@pytest.fixture(scope="session", params=FILES)
def handed(request, tmp_path_factory, tiny_exported):
    """Return the tiny model in a format, in INT8 too where its tool quantizes; made once, as some tools take long."""
    name = request.param
    skip_without(name)
    folder = once(
        tmp_path_factory,
        f"for-{name}",
        lambda folder: hand_over(tiny_exported, name, folder / "out", "--data", SHAPES, "--samples", "24"),
    )
    return Handed(name, folder / "out", json.loads((folder / "out/edgevit.json").read_text()))


@pytest.fixture(params=RUN_HERE)
def name(request):
    skip_without(request.param)
    return request.param


@pytest.fixture
def expected(tiny_exported, pictures):
    """Return two images as the model takes them, and float32's answers in onnxruntime."""
    with load(tiny_exported, variant="float32") as model:
        images = model.prepare(pictures)
        return images, model.infer(images)


def test_what_is_handed_over_is_whole_and_says_what_it_is(handed, tiny_exported):
    said, out = handed.said, handed.path
    float32, *_ = said["models"]
    assert float32["model"] == f"float32/{FILES[handed.name]}"
    listed = {file["path"]: file["sha256"] for model in said["models"] for file in model["files"]}
    present = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert present == {*listed, "edgevit.json"}
    assert all(sha256_of(out / path) == digest for path, digest in listed.items())
    manifest = Bundle.open(tiny_exported).manifest
    assert said["input"]["shape"] == [1, 3, 16, 16]
    assert said["labels"] == list(manifest.labels)
    assert said["weights_sha256"] == manifest.provenance.weights_sha256
    assert {"torch", *CONVERTERS[handed.name].packages} == set(said["tools"])
    assert (float32["check"] is not None) == CONVERTERS[handed.name].runs


def test_float32_answers_as_the_bundle_does(handed, expected):
    if not CONVERTERS[handed.name].runs:
        pytest.skip("nothing here runs it")
    images, wanted = expected
    assert np.ptp(wanted) > 1
    float32, *_ = handed.said["models"]
    assert float32["check"]["difference"] <= 1e-4
    np.testing.assert_allclose(handed.answers(float32, images), wanted, atol=1e-4)


def test_int8_by_the_tools_own_quantizer_is_measured(handed, expected):
    kind = CONVERTERS[handed.name]
    assert [model["precision"] for model in handed.said["models"]] == [
        "float32",
        *([kind.quantized] * (kind.quantized is not None)),
    ]
    if kind.quantized is None:
        return
    float32, int8 = handed.said["models"]
    assert sum(file["bytes"] for file in int8["files"]) < 0.8 * sum(file["bytes"] for file in float32["files"])
    if not kind.runs:
        assert int8["check"] is None
        return
    assert handed.said["calibration"]["images"] == 24
    assert int8["check"]["images"] == 64
    assert int8["check"]["images_agreement"] >= 0.75
    assert int8["check"]["images_sqnr_db"] > 8
    images, wanted = expected
    found = handed.answers(int8, images)
    cosine = np.vdot(found, wanted) / np.linalg.norm(found) / np.linalg.norm(wanted)
    assert 0.9 < cosine < 1 - 1e-7  # near, and another model than float32's


def test_several_outputs_come_in_their_order(tiny_dense, tmp_path, name):
    said = hand_over(tiny_dense, name, tmp_path / "out").said
    typed = Bundle.open(tiny_dense).manifest.typed_outputs
    assert len(typed) == 3
    assert [output["name"] for output in said["outputs"]] == [output.name for output in typed]
    assert said["models"][0]["check"]["golden_images"] > 0


def test_a_pack_of_an_embedding_model_is_handed_over_and_stays_as_it_is(tiny_embedding, tmp_path, name):
    packed = tmp_path / "tiny.edgevit.zip"
    must_run("pack", tiny_embedding, "-o", packed)
    before = sha256_of(packed)
    said = hand_over(packed, name, tmp_path / "out").said
    assert said["models"][0]["check"]["difference"] <= 1e-3
    assert said["labels"] == []
    assert sha256_of(packed) == before
    assert {path.name for path in tmp_path.iterdir()} == {packed.name, "out"}


def test_a_layer_that_ncnn_lacks_is_named(tmp_path):
    from edgevit.errors import GraphError
    from edgevit.mobile.ncnn import _check_layers

    (tmp_path / "model.ncnn.param").write_text("7767517\n2 2\nInput in0 0 1 in0\ntorch.roll roll_0 1 1 in0 out0\n")
    with pytest.raises(GraphError, match=r"ncnn has no layer for torch\.roll"):
        _check_layers(tmp_path / "model.ncnn.param")
