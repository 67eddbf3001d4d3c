"""The public functions, called as an application or a notebook calls them."""

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import SHAPES

import edgevit as public
from edgevit.cli.app import load_command
from edgevit.data.in_memory import ImageList
from edgevit.data.labels import map_labels
from edgevit.data.shapes import load_shapes
from edgevit.errors import BundleError, DataError, ImageError, InputError

STEPS = ("export", "quantize", "build", "validate", "benchmark", "race", "pack", "verify", "predict")
#: What the command line calls otherwise: it writes lists and sizes as text.
ONLY_PYTHON = {"outputs", "progress", "labels", "input_shape", "channels"}


def test_what_is_public_is_there_and_documented():
    assert set(public.__all__) == {*STEPS, "pack_mobile", "load", "Bundle", "EdgeViTError", "ProgressEvent"}
    for name in public.__all__:
        assert inspect.getdoc(getattr(public, name))
        assert name in dir(public)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = public.quantise


def test_importing_it_loads_nothing_heavy():
    heavy = "torch", "onnx", "onnx_ir", "onnxruntime", "openvino", "numpy", "PIL", "msgspec", "typer"
    program = f"import sys, edgevit; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("step", STEPS)
def test_arguments_are_the_command_lines(step):
    given = inspect.signature(getattr(public, step)).parameters
    typed = inspect.signature(load_command(step).callback).parameters
    names = {"variant": "variants"} if step in ("validate", "benchmark", "pack", "verify") else {}
    names |= {"precision": "precisions", "token_budget": "token_budgets"} if step == "race" else {}
    names |= {"trusted_key": "trusted_keys", "license_": "license"}
    left_out = {"json"}
    left_out |= {"predict": {"output"}, "race": {"junit"}}.get(
        step, set()
    )  # what it writes into a file it returns here
    if step == "pack":  # whose options for phones are those of a function of their own
        left_out |= inspect.signature(public.pack_mobile).parameters.keys() - given.keys()
    options = {names.get(name, name): one.default for name, one in typed.items() if name not in left_out}
    assert options.keys() <= given.keys()
    assert given.keys() - options.keys() <= ONLY_PYTHON
    for name, default in options.items():
        own = given[name].default
        if own != () and own is not inspect.Parameter.empty and default is not inspect.Parameter.empty:
            assert own == default, name


def arrays(split, count):
    data = load_shapes(split, f"size=20,count={count}")
    return [np.asarray(data.image(index)) for index in range(count)], [data.class_names[i] for i in data.labels]


def test_images_that_are_at_hand(exported):
    images, _ = arrays("train", 24)
    made = public.quantize(exported, data=(image for image in images))
    assert made.passed
    assert made.names == ("float32-onnxruntime", "int8-onnxruntime", "float32-openvino", "int8-openvino")
    assert json.loads(json.dumps(made.to_dict()))["variants"][1]["kernels"]["integer_linears"]

    images, labels = arrays("test", 40)
    plain = public.validate(made.bundle, data=images, variants=["int8-onnxruntime"])
    assert plain.accuracies["int8-onnxruntime"].top1 is None
    found = public.validate(made.bundle, data=images, labels=labels)
    indices = [made.bundle.manifest.labels.index(label) for label in labels]
    again = public.validate(exported, data=images, labels=indices)
    for name, accuracy in found.accuracies.items():
        assert accuracy.top1 == again.accuracies[name].top1
    told = public.predict(exported, images, top=1, variant="float32")
    right = np.mean([one[0].label == label for one, label in zip(told.predictions, labels, strict=True)])
    assert found.accuracies["float32"].top1 == pytest.approx(right)


def test_a_bundle_that_was_held_while_it_changed_loses_nothing(exported):
    before = public.Bundle.open(exported)
    public.build(before, target="x86-onnxruntime", precision="float32")
    public.build(before, target="x86-openvino", precision="float32")
    names = [variant.name for variant in public.Bundle.open(exported).manifest.variants]
    assert names == ["float32", "float32-onnxruntime", "float32-openvino"]


def test_pictures_paths_and_bytes_are_one_and_the_same(exported, pictures):
    images = [pictures[0], pictures[1].read_bytes(), Image.open(pictures[0]), np.asarray(Image.open(pictures[1]))]
    found = public.predict(exported, images, top=2)
    assert found.predictions[:2] == found.predictions[2:]
    listed = found.to_dict()["images"]
    assert [one.get("path", one.get("index")) for one in listed] == [str(pictures[0]), 1, 2, 3]
    assert public.predict(exported, pictures[0], top=2).predictions == found.predictions[:1]


def test_an_embedding_model_gives_features(embedding, pictures):
    found = public.predict(embedding, pictures, variant="int8-openvino")
    assert found.embeddings.shape == (2, 32)
    assert found.predictions == ()
    assert len(found.to_dict()["images"][0]["embedding"]) == 32


def test_progress_is_called_back(exported):
    seen = []
    public.quantize(exported, data=SHAPES, samples=16, dialect="onnxruntime", progress=seen.append)
    assert any(event.done is None for event in seen)
    counted = [event for event in seen if event.message == "Calibrating"]
    assert (counted[0].done, counted[-1].done) == (0, counted[-1].total)


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"data": []}, DataError, "no images"),
        ({"data": 5}, InputError, "not several images"),
        ({"data": [np.zeros((8, 8, 3), np.float32)]}, DataError, "none of the 1 images"),
        ({"data": [np.zeros((8, 8, 3), np.float32)], "strict": True}, ImageError, "float32"),
        ({"data": [np.zeros((8, 8, 3), np.uint8)], "root": "x"}, InputError, "root goes with"),
        ({"data": SHAPES, "precision": "int9"}, InputError, "no precision 'int9'"),
        ({"data": SHAPES, "dialect": "tensorflow"}, InputError, "no dialect 'tensorflow'"),
        ({"data": SHAPES, "recipe": "fastest"}, InputError, "fastest"),
        ({}, InputError, "needs calibration images"),
        ({"data": SHAPES, "samples": 0}, InputError, "samples is 0"),
        ({"data": SHAPES, "samples": 2.5}, InputError, "samples is 2.5"),
        ({"data": SHAPES, "seed": -1}, InputError, "seed is -1"),
        ({"data": SHAPES, "max_drop": float("inf")}, InputError, "max_drop is inf"),
        ({"data": SHAPES, "max_kl": -1.0}, InputError, "max_kl is -1"),
        ({"data": SHAPES, "precision": None}, InputError, "precision is None"),
        ({"data": SHAPES, "recipe": 5}, InputError, "recipe is 5"),
        ({"data": SHAPES, "progress": "yes"}, InputError, "progress is 'yes'"),
    ],
)
def test_what_cannot_be_quantized_is_an_error(exported, arguments, kind, said):
    with pytest.raises(kind, match=said) as caught:
        public.quantize(exported, **arguments)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("labels", "said"), [([0], "1 labels for 2"), ([0, "square"], "neither all names"), ([0, -1], "neither all")]
)
def test_labels_that_do_not_fit_are_an_error(exported, labels, said):
    with pytest.raises(DataError, match=said):
        public.validate(exported, data=[np.zeros((8, 8, 3), np.uint8)] * 2, labels=labels)


@pytest.mark.parametrize("labels", [{"0", "1"}, {"0": 1, "1": 2}, "01", 3, (label for label in "01")])
def test_labels_without_an_order_are_an_error(exported, labels):
    with pytest.raises(InputError, match="labels is a"):
        public.validate(exported, data=[np.zeros((8, 8, 3), np.uint8)] * 2, labels=labels)


@pytest.mark.parametrize(
    "arguments",
    [{"max_drop": float("nan")}, {"max_drop": -1}, {"max_drop": "1"}, {"variants": "float32"}, {"variants": [3]}],
)
def test_limits_and_variants_are_checked(exported, arguments):
    with pytest.raises(InputError):
        public.validate(exported, data=SHAPES, **arguments)


def test_an_index_is_no_name_that_looks_like_one(exported):
    """A model whose classes are called by numbers: what is given as an index is one."""
    digits = tuple("12345670")
    bundle = public.Bundle.open(exported)
    images, _ = arrays("test", 16)
    told = [one[0].index for one in public.predict(exported, images, top=1).predictions]
    assert map_labels(ImageList(images, told), digits).tolist() == told
    assert map_labels(ImageList(images, [digits[index] for index in told]), digits).tolist() == told
    with pytest.raises(DataError, match="has label 8"):
        public.validate(bundle, data=images[:1], labels=[8])


def test_labels_do_not_go_with_a_folder(exported):
    with pytest.raises(InputError, match="labels go with"):
        public.validate(exported, data=SHAPES, labels=[0])


def test_no_bundle_is_an_error(tmp_path):
    for path, kind in ((tmp_path, BundleError), (None, InputError), (5, InputError)):
        with pytest.raises(kind):
            public.benchmark(path)
