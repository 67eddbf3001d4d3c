"""Labels name the classes of the one row of logits among several outputs, or it is said why they do not."""

import json

import msgspec
import numpy as np
import pytest

from edgevit.errors import CheckpointError, DataError, GraphError, InputError
from edgevit.graph.external_onnx import write_verified
from edgevit.graph.interface import onnx_outputs_in
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.models.outputs import Output

NAMES = tuple("abcde")
GRAPH = """three (float[b,3,8,8] x) => (float[b,5] scores_of_class, float[b,6] embedding, float[b,1] flag) {
    flat = Flatten (x)
    first = MatMul (flat, wide)
    HEAD
    embedding = MatMul (flat, other)
    flag = MatMul (flat, one)
}"""
PLAIN = "scores_of_class = Identity (first)"
SOFTMAX = "soft = Softmax <axis = -1> (first) scores_of_class = Identity (soft)"
IN_PARTS = "e = Exp (first) s = ReduceSum <keepdims = 1> (e, axes) scores_of_class = Div (e, s)"
IMAGES = np.random.default_rng(1).normal(size=(4, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def file(write_graph, tmp_path):
    """Return a function that writes the file of a model with three outputs; its head ends as ``head`` says."""
    random = np.random.default_rng(0)
    sizes = {"wide": 5, "other": 6, "one": 1}
    weights = {name: random.normal(0, 0.05, (192, size)).astype(np.float32) for name, size in sizes.items()}

    def write(head=PLAIN):
        path = write_graph(GRAPH.replace("HEAD", head), {**weights, "axes": np.array([-1])})
        return path.rename(tmp_path / "model.onnx")

    return write


def opened(path, *outputs, **given):
    chosen = onnx_outputs_in(outputs or ["scores_of_class", "embedding"])
    return open_onnx(path, str(path), MetadataOverrides(outputs=chosen, **given))


def config(path, **content):
    path.with_name("config.json").write_text(json.dumps(content))


def test_labels_are_those_of_the_row_of_logits(file):
    model = opened(file(), labels=NAMES)
    first, second = model.outputs
    assert (first.labels, first.activation, first.independent) == (NAMES, "softmax", False)
    assert (second.labels, model.labels) == ((), ())
    assert any("logits (classes 5), labels a, b, c, ..." in note for note in model.notes)
    assert opened(file()).outputs[0].labels == ()
    assert opened(file(), labels=NAMES, activation="sigmoid").outputs[0].independent


def test_a_single_logit_says_no_and_yes(file):
    chosen = ("flag=logits", "embedding")
    assert opened(file(), *chosen, labels=("cat",)).outputs[0].labels == ("not cat", "cat")
    assert opened(file(), *chosen, labels=("dog", "cat")).outputs[0].independent
    with pytest.raises(InputError, match="has a single logit, whose softmax is always 1"):
        opened(file(), *chosen, labels=("cat",), activation="softmax")


def test_config_json_names_them_too(file):
    path = file()
    config(path, id2label=dict(enumerate(NAMES)), problem_type="multi_label_classification")
    first = opened(path).outputs[0]
    assert (first.labels, first.activation) == (NAMES, "sigmoid")
    assert opened(path, labels=tuple("vwxyz")).outputs[0].labels == tuple("vwxyz")
    assert opened(path, "embedding", "flag=any").outputs[0].labels == ()


@pytest.mark.parametrize(
    ("head", "said", "why"),
    [
        (PLAIN, {"id2label": {0: "a", 1: "b"}}, "the 2 labels of config.json are not used: the output scores_of_class"),
        (SOFTMAX, {"id2label": dict(enumerate(NAMES))}, "are not used: the output scores_of_class ends with a Softmax"),
        (PLAIN, {"id2label": dict(enumerate(NAMES)), "problem_type": "regression"}, "problem_type='regression'"),
    ],
)
def test_those_of_config_json_that_do_not_fit_are_left_out_and_it_is_said(file, head, said, why):
    path = file(head)
    config(path, **said)
    model = opened(path)
    assert model.outputs[0].labels == ()
    assert any(why in note for note in model.notes)


@pytest.mark.parametrize(
    ("outputs", "given", "error", "message", "remedy"),
    [
        ((), {"labels": ("a", "b")}, DataError, "has 2 labels, the output scores_of_class has 5 classes", "one label"),
        (("embedding", "flag=any"), {"labels": NAMES}, InputError, "no output is one: embedding (embedding), flag (any",
         "leave out --labels, or say that one is: --onnx-output embedding=logits"),
        (("scores_of_class", "flag=logits"), {"labels": NAMES}, InputError, "2 outputs are such", "OTHER=any"),
        ((), {"activation": "sigmoid"}, InputError, "no output of", "give --labels"),
    ],
)  # fmt: skip
def test_labels_that_mean_nothing_are_refused(file, outputs, given, error, message, remedy):
    with pytest.raises(error) as caught:
        opened(file(), *outputs, **given)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_probabilities_are_no_logits(file, tmp_path):
    with pytest.raises(GraphError, match=r"'scores_of_class' of .* ends with a Softmax"):
        opened(file(SOFTMAX), labels=NAMES)
    model = opened(file(IN_PARTS), labels=NAMES)
    with pytest.raises(GraphError, match="gives probabilities, not logits") as caught:
        write_verified(model, tmp_path / "bundle.onnx", IMAGES)
    assert "--onnx-output NAME=any" in caught.value.remedy
    write_verified(opened(file(IN_PARTS)), tmp_path / "bundle.onnx", IMAGES)  # nobody makes probabilities of these


def test_the_bundles_own_file_keeps_them(file, tmp_path):
    model = opened(file(), labels=NAMES, activation="sigmoid")
    write_verified(model, tmp_path / "bundle.onnx", IMAGES)
    again = open_onnx(tmp_path / "bundle.onnx", "bundle.onnx", MetadataOverrides())
    assert again.outputs == model.outputs
    other = open_onnx(tmp_path / "bundle.onnx", "bundle.onnx", MetadataOverrides(labels=tuple("vwxyz")))
    assert (other.outputs[0].labels, other.outputs[0].activation) == (tuple("vwxyz"), "softmax")
    changed = open_onnx(tmp_path / "bundle.onnx", "bundle.onnx", MetadataOverrides(activation="softmax"))
    assert (changed.outputs[0].labels, changed.outputs[0].activation) == (NAMES, "softmax")


def test_labels_beside_it_that_are_not_numbered(file):
    path = file()
    config(path, id2label={"1": "a", "3": "b"})
    with pytest.raises(CheckpointError, match="are not numbered"):
        opened(path)


@pytest.mark.parametrize(
    ("kind", "shape", "labels"),
    [("logits", [5], list("abcd")), ("logits", [2, 5], list("abcde")), ("tokens", [5, 2], list("abcde")),
     ("logits", [1], ["a"])],
)  # fmt: skip
def test_a_manifest_with_labels_that_do_not_fit_is_not_read(kind, shape, labels):
    said = {"name": "x", "kind": kind, "shape": shape, "dims": ["a"] * len(shape), "labels": labels}
    with pytest.raises(msgspec.ValidationError, match="labels and is"):
        msgspec.convert(said, Output, strict=False)
