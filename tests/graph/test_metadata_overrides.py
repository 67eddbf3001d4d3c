"""What an ONNX file does not say is taken from the user, else from files beside it, else assumed and said aloud."""

import json
import shutil

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgevit.bundle.store import Bundle
from edgevit.errors import CheckpointError, DataError, GraphError, InputError
from edgevit.graph.external_onnx import write_verified
from edgevit.graph.interface import onnx_outputs_in
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.models.labels import imagenet_labels

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
PROCESSOR = {
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "image_mean": list(MEAN),
    "image_std": list(STD),
}
TIMM = {"input_size": [3, 32, 32], "crop_pct": 0.8, "interpolation": "bilinear", "mean": list(MEAN), "std": list(STD)}


@pytest.fixture
def vit(external_vits, tmp_path):
    """Return a copy of a file in a folder of its own, for other files to lie beside it."""
    (tmp_path / "folder").mkdir()
    return shutil.copy(external_vits["new"], tmp_path / "folder" / "vit.onnx")


def opened(path, **given):
    return open_onnx(path, str(path), MetadataOverrides(**given))


def said(model):
    return " | ".join(model.notes)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_nothing_is_said(vit):
    model = opened(vit)
    spec = model.spec
    assert (spec.image_size, spec.channels, spec.classes, spec.outputs) == ((32, 32), 3, 5, 5)
    assert "pytorch" in spec.producer
    preprocess = model.preprocess
    assert (preprocess.size, preprocess.resize, preprocess.interpolation) == ((32, 32), 37, "bicubic")
    assert (preprocess.mean, preprocess.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert model.labels == tuple("01234")
    assert "no file says how images are prepared: assumed ImageNet's" in said(model)
    assert "nothing names the classes" in said(model)
    assert "taken for 5 logits" in said(model)


def test_files_beside_it(vit):
    write(vit.with_name("preprocessor_config.json"), PROCESSOR)
    write(vit.with_name("config.json"), {"id2label": {str(index): name for index, name in enumerate("abcde")}})
    model = opened(vit)
    assert model.labels == tuple("abcde")
    preprocess = model.preprocess
    assert (preprocess.mean, preprocess.std, preprocess.interpolation) == (MEAN, STD, "bilinear")
    assert preprocess.resize is None
    assert "assumed" not in said(model)


def test_labels_beside_it_that_are_another_models(vit):
    write(vit.with_name("config.json"), {"id2label": {"0": "cat", "1": "dog"}})
    with pytest.raises(CheckpointError, match="names 2 labels, its head has 5 classes"):
        opened(vit)


@pytest.mark.parametrize("content", [PROCESSOR, {"pretrained_cfg": TIMM}, TIMM])
def test_a_file_of_another_name(vit, tmp_path, content):
    write(vit.with_name("preprocessor_config.json"), {**PROCESSOR, "image_mean": [0.9] * 3})
    model = opened(vit, preprocess=write(tmp_path / "any.json", content))
    assert (model.preprocess.mean, model.preprocess.interpolation) == (MEAN, "bilinear")
    assert model.preprocess.resize == (None if content is PROCESSOR else 40)


def test_a_file_of_openclips(vit, tmp_path):
    content = {"preprocess_cfg": {"mean": MEAN, "std": STD, "resize_mode": "squash"}}
    model = opened(vit, preprocess=write(tmp_path / "open_clip_config.json", content))
    assert (model.preprocess.mean, model.preprocess.resize) == (MEAN, None)


@pytest.mark.parametrize("content", [{"a": 1}, [1], {"image_mean": "red"}])
def test_a_file_that_says_nothing_of_images(vit, tmp_path, content):
    with pytest.raises(CheckpointError):
        opened(vit, preprocess=write(tmp_path / "any.json", content))
    with pytest.raises(CheckpointError, match="there is no file"):
        opened(vit, preprocess=tmp_path / "none.json")


def test_what_the_user_says_goes_first(vit):
    write(vit.with_name("preprocessor_config.json"), PROCESSOR)
    model = opened(vit, mean=(0.5,), std=(0.25, 0.5, 1.0), resize=48, interpolation="bicubic")
    preprocess = model.preprocess
    assert (preprocess.mean, preprocess.std) == ((0.5,) * 3, (0.25, 0.5, 1.0))
    assert (preprocess.resize, preprocess.interpolation) == (48, "bicubic")
    assert "with the mean, std, resize and interpolation that you gave: short edge 48" in said(model)
    assert opened(vit, resize="squash").preprocess.resize is None
    with pytest.raises(DataError):
        opened(vit, mean=(0.5, 0.5))
    with pytest.raises(DataError):
        opened(vit, std=(0.0,))
    with pytest.raises(DataError):
        opened(vit, resize=16)


def test_pixels_of_another_range(vit):
    write(vit.with_name("preprocessor_config.json"), {**PROCESSOR, "do_rescale": False, "do_normalize": False})
    pixels = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(32, 32, 3).astype(np.uint8)
    found = opened(vit).preprocess.normalize(pixels)
    np.testing.assert_allclose(found, np.moveaxis(pixels, -1, 0), atol=1e-4)
    write(vit.with_name("preprocessor_config.json"), {**PROCESSOR, "rescale_factor": 0})
    with pytest.raises(DataError, match="rescale_factor"):
        opened(vit)


def test_labels(vit, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nthree\n four \nfive, or so\n")
    assert opened(vit, labels=names).labels == ("one", "two", "three", "four", "five, or so")
    assert opened(vit, labels=write(tmp_path / "list.json", list("abcde"))).labels == tuple("abcde")
    id2label = {"id2label": {str(index): name for index, name in enumerate("vwxyz")}}
    assert opened(vit, labels=write(tmp_path / "config.json", id2label)).labels == tuple("vwxyz")
    names.write_text("one\n\nthree")
    with pytest.raises(DataError, match=r"line 2 of .* is empty"):
        opened(vit, labels=names)
    names.write_text("one\ntwo")
    with pytest.raises(DataError, match="has 2 labels, the model has 5 classes"):
        opened(vit, labels=names)
    with pytest.raises(DataError, match="has 2 labels, the model has 0 classes") as caught:
        opened(vit, labels=names, embedding=True)
    assert "leave out" in caught.value.remedy
    for content in (b"", b"\xff\xfe\x00", b"\x00"):
        names.write_bytes(content)
        with pytest.raises(DataError):
            opened(vit, labels=names)
    for content in ("[1]", "{", "{}"):
        (tmp_path / "list.json").write_text(content)
        with pytest.raises(DataError):
            opened(vit, labels=tmp_path / "list.json")


def test_an_embedding(vit):
    model = opened(vit, embedding=True)
    assert (model.spec.classes, model.spec.outputs, model.labels) == (0, 5, ())
    assert "taken for 5 features" in said(model)


def test_several_outputs(external_vits):
    path = external_vits["hidden"]
    assert [(each.name, each.kind, each.shape) for each in opened(path).outputs] == [
        ("last", "any", (17, 32)),
        ("pooled", "embedding", (32,)),
    ]
    with pytest.raises(GraphError, match="has no output 'pool'") as caught:
        opened(path, outputs=onnx_outputs_in(["pool"]))
    assert "last, pooled" in caught.value.remedy
    with pytest.raises(InputError, match="--embedding says that there is one row"):
        opened(path, embedding=True)
    with pytest.raises(GraphError, match=r"has the shape .* and cannot be tokens") as caught:
        opened(path, outputs=onnx_outputs_in(["pooled=tokens"]))
    assert "pooled=any" in caught.value.remedy
    model = opened(path, outputs=onnx_outputs_in(["pooled"]))
    assert model.spec.outputs == 32
    assert "left out its outputs last" in said(model)


def test_images_of_any_size(external_vits, tmp_path):
    path = external_vits["any size"]
    with pytest.raises(GraphError, match="images of any size") as caught:
        opened(path)
    assert "--image-size" in caught.value.remedy
    assert opened(path, image_size=(32, 32)).spec.image_size == (32, 32)
    processor = write(tmp_path / "any.json", {**PROCESSOR, "size": {"shortest_edge": 40}, "crop_size": 32})
    model = opened(path, preprocess=processor)
    assert (model.spec.image_size, model.preprocess.resize) == ((32, 32), 40)
    with pytest.raises(GraphError, match=r"cannot run .* on an image of 64x64") as caught:
        opened(path, image_size=(64, 64))  # there are positions for 4x4 patches
    assert caught.value.remedy == "give --image-size"
    shutil.copy(path, tmp_path / "vit.onnx")
    write(tmp_path / "config.json", {"image_size": 32})
    assert opened(tmp_path / "vit.onnx").spec.image_size == (32, 32)


def test_another_size_than_the_file_fixes(vit):
    with pytest.raises(GraphError, match="takes images of 32x32, not 64x64") as caught:
        opened(vit, image_size=(64, 64))
    assert "leave --image-size out" in caught.value.remedy
    write(vit.with_name("preprocessor_config.json"), {**PROCESSOR, "size": {"height": 64, "width": 64}})
    model = opened(vit)
    assert model.preprocess.size == (32, 32)
    assert "makes 64x64, it takes 32x32" in said(model)


def test_a_number_of_images_that_is_fixed(external_vits):
    assert "rewritten to take any number" in said(opened(external_vits["one image, old"]))
    with pytest.raises(GraphError, match="takes 2 images at a time") as caught:
        opened(external_vits["two images"])
    assert "dynamic_axes" in caught.value.remedy


def test_a_thousand_classes_are_imagenets(external_vits, monkeypatch):
    monkeypatch.setattr("edgevit.graph.metadata_overrides._shapes", lambda *_, **__: [(1000,)])
    model = opened(external_vits["new"])
    assert model.labels == imagenet_labels()
    assert "taken for ImageNet-1k's" in said(model)


def test_a_name_that_is_not_plain_is_kept_beside_the_one_that_replaces_it(external_vits, tmp_path):
    graph = ir.load(external_vits["hidden"])
    for value, name in zip(graph.graph.outputs, ("last hidden \x1b[31mstate", "pooled:0"), strict=True):
        value.name = name
    ir.save(graph, tmp_path / "odd.onnx")
    model = opened(tmp_path / "odd.onnx")
    original = "last hidden ?[31mstate"
    assert [(each.name, each.original_name) for each in model.outputs] == [
        ("last_hidden__[31mstate", original),
        ("pooled:0", None),
    ]
    assert f"in the file given '{original}'" in said(model)
    write_verified(model, tmp_path / "model.onnx", np.zeros((2, 3, 32, 32), np.float32))
    assert opened(tmp_path / "model.onnx").outputs == model.outputs


def test_what_edgevit_wrote_into_its_own_file(tiny_exported, tmp_path):
    path = tiny_exported / "float32" / "model.onnx"
    manifest = Bundle.open(tiny_exported).manifest
    model = opened(path)
    assert (model.preprocess, model.labels) == (manifest.preprocess, manifest.labels)
    assert "assumed" not in said(model)
    assert opened(path, std=(1.0,)).preprocess.std == (1.0,) * 3
    graph = onnx.load(path)
    for entry in graph.metadata_props:
        if entry.key == "edgevit.preprocess":
            entry.value = entry.value.replace("16", "-1")
    onnx.save(graph, tmp_path / "odd.onnx")
    with pytest.raises(GraphError, match="note on its preprocess cannot be understood"):
        opened(tmp_path / "odd.onnx")


def test_an_embedding_of_edgevits(tiny_embedding):
    model = opened(tiny_embedding / "float32" / "model.onnx")
    assert (model.spec.classes, model.spec.outputs) == (0, 32)
