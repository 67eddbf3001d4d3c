"""export/web in Node, on onnxruntime-node: the same input and decisions as Python's."""

import shutil
from pathlib import Path

import msgspec
import node_host
import numpy as np
import pytest
from export_cases import picture, preprocesses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import edgevit as public
from edgevit.errors import ImageError
from edgevit.runtime import load


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    folder = node_host.built(tmp_path_factory)
    process = node_host.Node(folder)
    yield process
    process.close()


@pytest.fixture(scope="module")
def pack(tiny_quantized, tmp_path_factory):
    return str(public.pack(tiny_quantized, tmp_path_factory.mktemp("pack") / "tiny.edgevit.zip").path)


@pytest.mark.parametrize("variant", ["float32", "float32-onnxruntime", "int8-onnxruntime"])
def test_answers_are_pythons(node, pack, variant):
    with load(pack, variant=variant, threads=1) as model:
        for size in ((16, 16), (30, 41), (200, 20), (333, 500)):
            image = picture(*size)
            found = node(image, pack=pack, variant=variant, top=3)
            assert found["same"]
            assert found["labels"] == list(model.labels)
            np.testing.assert_allclose(found["outputs"]["logits"], model.infer_images([image])[0], atol=1e-5)
            expected = model.predict(image, top=3)
            assert [(each["label"], each["index"]) for each in found["best"]] == [(e.label, e.index) for e in expected]
            np.testing.assert_allclose(
                [each["probability"] for each in found["best"]], [each.probability for each in expected], atol=1e-5
            )


def test_int8_is_taken_once_it_was_validated(node, tiny_quantized, pack, tmp_path):
    assert node(picture(), pack=pack, top=1)["variant"] == "float32"
    bundle = shutil.copytree(tiny_quantized, tmp_path / "b.edgevit")
    public.validate(bundle, data="shapes:size=16,count=64")
    validated = public.pack(bundle, tmp_path / "v.edgevit.zip").path
    assert node(picture(), pack=str(validated), top=1)["variant"] == "int8-onnxruntime"


def test_models_of_other_outputs(node, tiny_dense, tiny_embedding, tmp_path):
    for number, bundle in enumerate((tiny_dense, tiny_embedding)):
        path = public.pack(bundle, tmp_path / f"{number}.zip", variants=["float32"]).path
        found = node(picture(), pack=str(path), top=3)
        with load(path, variant="float32", threads=1) as model:
            expected = model.outputs(picture())
        assert found["outputs"].keys() == expected.keys()
        for name, wanted in expected.items():
            np.testing.assert_allclose(found["outputs"][name], wanted.ravel(), atol=1e-5)


@given(preprocess=preprocesses(), height=st.integers(1, 90), width=st.integers(1, 90), seed=st.integers(0, 9))
@settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])
def test_every_way_to_prepare_an_image_is_pythons(node, preprocess, height, width, seed):
    if preprocess is None:
        return
    image = picture(height, width, seed=seed)
    found = node(image, preprocess=msgspec.to_builtins(preprocess))
    try:
        expected = preprocess(Image.fromarray(image))
    except ImageError:
        assert found["type"] == "EdgeViTError"
        return
    np.testing.assert_array_equal(np.asarray(found["input"], np.float32), expected.ravel())


def test_formats_and_strides(node, tiny_quantized):
    spec = msgspec.to_builtins(public.Bundle.open(tiny_quantized).manifest.preprocess)
    image = picture()
    expected = node(image, preprocess=spec)["input"]
    for form, order in (("bgr", [2, 1, 0]), ("rgba", [0, 1, 2, 0]), ("bgra", [2, 1, 0, 0])):
        assert node(np.ascontiguousarray(image[..., order]), form, preprocess=spec)["input"] == expected
    gaps = np.zeros((30, 64, 3), np.uint8)
    gaps[:, :41] = image
    assert node(gaps, preprocess=spec, image={"width": 41, "stride": 192})["input"] == expected


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ({"stride": 5}, "stride of 5"),
        ({"width": 0}, "0x30"),
        ({"height": 31}, "takes"),
        ({"format": "hsv"}, "no format hsv"),
        ({"width": 1e9}, "pixels"),
    ],
)
def test_an_image_that_cannot_be_is_named(node, pack, image, problem):
    found = node(picture(), pack=pack, variant="float32", top=1, image=image)
    assert found["type"] == "EdgeViTError"
    assert problem in found["error"]


def test_what_cannot_be_opened_is_named(node, pack, tmp_path):
    def refused(path, problem, **options):
        found = node(picture(), pack=str(path), top=1, **options)
        assert found["type"] == "EdgeViTError"
        assert problem in found["error"]

    refused(tmp_path / "absent.zip", "cannot be read")
    refused(pack, "no variant 'int9'", variant="int9")
    refused(pack, "is for openvino", variant="int8-openvino")
    content = Path(pack).read_bytes()
    for size in (0, 10, len(content) - 5):
        (tmp_path / f"{size}.zip").write_bytes(content[:size])
        refused(tmp_path / f"{size}.zip", "cut short")
    place = content.index(b"float32/model.onnx") + 20_000
    damaged = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    (tmp_path / "damaged.zip").write_bytes(damaged)
    refused(tmp_path / "damaged.zip", "not what the manifest says", variant="float32")


def test_damaged_packs_are_read_or_refused(node, pack, tmp_path):
    random = np.random.default_rng(0)
    content = Path(pack).read_bytes()
    for case in range(150):
        damaged = bytearray(content)
        for _ in range(random.integers(1, 5)):
            place = random.choice([random.integers(len(content) - 4096, len(content)), random.integers(9000)])
            damaged[place] = random.integers(256)
        path = tmp_path / f"{case}.zip"
        path.write_bytes(damaged)
        found = node(picture(), pack=str(path), variant="int8-onnxruntime", top=1)
        assert "best" in found or found["type"] == "EdgeViTError", found
