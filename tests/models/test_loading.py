"""Sources, their configs, labels and preprocessing, and what is wrong with them."""

import importlib
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from zoo import openai_names

from edgevit.data.batches import Unreadable
from edgevit.errors import CheckpointError, InputError, SpecError
from edgevit.models.families import FAMILIES, identify
from edgevit.models.labels import imagenet_labels
from edgevit.models.loading import load_checkpoint
from edgevit.models.positions import interpolate_positions
from edgevit.models.spec import ModelSpec
from edgevit.models.vit import VisionTransformer
from edgevit.models.zero_shot import Prompts
from edgevit.runtime import load
from edgevit.stages.export import export
from edgevit.stages.images import DataSource
from edgevit.stages.validate import validate

SPEC = ModelSpec(image_size=(32, 32), patch_size=(8, 8), width=64, depth=2, heads=1, classes=7)


def weights(**changes) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return VisionTransformer(msgspec.structs.replace(SPEC, **changes)).state_dict()


def folder(path, config=None, processor=None, tensors=None) -> str:
    save_file(tensors or weights(), path / "model.safetensors")
    for name, content in (("config.json", config), ("preprocessor_config.json", processor)):
        if content is not None:
            (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_labels_come_from_config(tmp_path):
    names = ["ant", "bee", "cow", "dog", "eel", "fox", "gnu"]
    loaded = load_checkpoint(folder(tmp_path, {"id2label": {str(index): name for index, name in enumerate(names)}}))
    assert loaded.labels == tuple(names)
    assert not any("names the classes" in note for note in loaded.notes)


@pytest.mark.parametrize("own", [False, True])  # a file of another library's, or of EdgeViT
def test_labels_that_are_given_name_the_classes(tmp_path, own):
    names = tuple("abcdefa")  # two may be called the same, as some of ImageNet are
    source = folder(tmp_path, {"id2label": {"0": "\x1b[2J", "1": "b"}})  # too few, and odd
    if own:
        shutil.copytree(folder(tmp_path), tmp_path / "other", ignore=shutil.ignore_patterns("config.json", "other"))
        source = str(tmp_path / "own.safetensors")
        load_checkpoint(str(tmp_path / "other")).save(Path(source))
    loaded = load_checkpoint(source, prompts=Prompts(names), activation="sigmoid")
    assert (loaded.labels, loaded.activation) == (names, "sigmoid")
    assert not any("names the classes" in note for note in loaded.notes)
    with pytest.raises(CheckpointError, match=r"6 labels, and .* a classifier of 7 classes"):
        load_checkpoint(source, prompts=Prompts(names[:6]))
    with pytest.raises(InputError, match="--template goes with a text tower"):
        load_checkpoint(source, prompts=Prompts(names, ("an image of a {}",)))


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"label2id": {"cba"[index]: index for index in range(3)}}, "cba"),
        ({"id2label": {str(index): str(2 - index) for index in range(3)}}, "210"),
        ({"id2label": {str(index): f"LABEL_{index}" for index in range(3)}}, "012"),
    ],
)
def test_labels_that_are_numbers_or_the_other_way_round(tmp_path, config, labels):
    assert load_checkpoint(folder(tmp_path, config, tensors=weights(classes=3))).labels == tuple(labels)


def test_labels_come_from_timms_config(tmp_path):
    config = {"label_names": list("abcdefg"), "label_descriptions": {"a": "an apple"}}
    assert load_checkpoint(folder(tmp_path, config)).labels == ("an apple", *"bcdefg")


def test_a_thousand_classes_are_imagenets(tmp_path):
    loaded = load_checkpoint(folder(tmp_path, tensors=weights(classes=1000)))
    assert loaded.labels[0].startswith("tench")
    assert any("taken for ImageNet-1k's" in note for note in loaded.notes)


def test_imagenets_labels_are_distinct_and_in_order():
    labels = imagenet_labels()
    assert len(set(labels)) == 1000
    known = {
        0: "tench",
        1: "goldfish",
        207: "golden retriever",
        217: "English springer",
        571: "gas",
        999: "toilet tissue",
    }
    assert all(labels[index].startswith(name) for index, name in known.items())


def test_imagenets_labels_equal_timms(timm):
    info = pytest.importorskip("timm.data").ImageNetInfo()
    wanted = [info.index_to_description(index) for index in range(1000)]
    assert [index for index, label in enumerate(imagenet_labels()) if label != wanted[index]] == [134, 517]


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"id2label": {"0": "ant"}}, "names 1 labels, its head has 7 classes"),
        ({"label_names": list("abcdefgh")}, "names 8 labels, its head has 7 classes"),
        ({"id2label": {str(index + 1): "ant" for index in range(7)}}, "not numbered 0 to 6"),
        ({"hidden_size": 128}, r"hidden_size is 128, the weights have 64"),
        ({"num_hidden_layers": 3, "patch_size": 4}, r"num_hidden_layers is 3, .*; patch_size is \(4, 4\)"),
        ({"num_classes": 1000}, "num_classes is 1000, the weights have 7"),
        ({"num_labels": 2}, "num_labels is 2, the weights have 7"),
        ({"label2id": dict.fromkeys("abcdefg", 1)}, "not numbered 0 to"),
        ({"pretrained_cfg": {"input_size": [3, 48, 48]}}, "leaves no grid of 6x6|17 positions"),
        ({"pretrained_cfg": {"input_size": [1, 32, 32]}}, r"input_size is \(1, 32, 32\)"),
        ({"hidden_size": "wide"}, "cannot be used: Expected `int"),
        ("{", "cannot be used"),
        ("[" * 100_000, "cannot be used"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(tmp_path, config, fault):
    with pytest.raises(CheckpointError, match=fault):
        load_checkpoint(folder(tmp_path, config))


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ({"embed_dim": 24, "vision_cfg": {"image_size": 32, "width": 64, "layers": 2, "patch_size": 8}}, None),
        ({"embed_dim": 48, "vision_cfg": {"layers": 3}}, "embed_dim is 48, the weights have 24; layers is 3"),
        ({"vision_cfg": {"layers": [3, 4, 6, 3], "width": 32}}, "width is 32, the weights have 64; layers is"),
        ({"vision_cfg": {"image_size": 48}}, "leaves no grid of 6x6"),
        ({"vision_cfg": {"pool_type": "avg"}}, "pools by 'avg'"),
    ],
)
def test_what_open_clips_config_says_is_compared_with_the_weights(tmp_path, model, fault):
    transformers = importlib.import_module("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=32, patch_size=8, projection_dim=24
    )
    state = transformers.CLIPVisionModelWithProjection(config).state_dict()
    tensors = {f"visual.{name}": tensor.contiguous() for name, tensor in openai_names(state).items()}
    save_file(tensors, tmp_path / "open_clip_model.safetensors")
    written = {"model_cfg": model, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(written))
    if fault is None:
        assert load_checkpoint(str(tmp_path)).preprocess.resize is None
        return
    with pytest.raises(CheckpointError, match=fault):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("processor", "size", "resize", "interpolation"),
    [
        ({"size": {"height": 32, "width": 32}, "resample": 2}, (32, 32), None, "bilinear"),
        ({"size": 32, "resample": 3}, (32, 32), None, "bicubic"),
        (
            {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3},
            (32, 32),
            40,
            "bicubic",
        ),
        ({"size": 40, "crop_size": 32, "do_center_crop": True}, (32, 32), 40, "bicubic"),
        ({"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": True}, (32, 32), 40, "bicubic"),
    ],
)
def test_preprocessing_comes_from_the_processor(tmp_path, processor, size, resize, interpolation):
    statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    found = load_checkpoint(folder(tmp_path, {}, {**processor, **statistics})).preprocess
    assert (found.size, found.resize, found.interpolation) == (size, resize, interpolation)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_smaller_crop_has_the_positions_interpolated_and_says_so(tmp_path):
    processor = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}
    loaded = load_checkpoint(folder(tmp_path, {}, processor))
    assert loaded.spec.image_size == loaded.preprocess.size == (16, 16)
    assert loaded.preprocess.resize == 20
    assert any("its preprocessing makes 16x16" in note for note in loaded.notes)


def test_preprocessing_comes_from_timms_config(tmp_path):
    cfg = {
        "input_size": [3, 32, 32],
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "crop_pct": 0.9,
        "interpolation": "bilinear",
    }
    found = load_checkpoint(folder(tmp_path, {"pretrained_cfg": cfg})).preprocess
    assert (found.size, found.resize, found.interpolation, found.std) == ((32, 32), 35, "bilinear", (0.25,) * 3)
    squashed = load_checkpoint(folder(tmp_path, {"pretrained_cfg": {**cfg, "crop_mode": "squash"}})).preprocess
    assert squashed.resize is None


@pytest.mark.parametrize("size", [(16, 48), (64, 64), (8, 8)])
def test_another_image_size(tmp_path, size):
    before = load_checkpoint(folder(tmp_path))
    after = load_checkpoint(str(tmp_path), size)
    assert after.spec.image_size == after.preprocess.size == size
    expected = interpolate_positions(before.weights["pos_embed"], (4, 4), after.spec.grid)
    torch.testing.assert_close(after.weights["pos_embed"], expected)
    assert after.preprocess.resize >= max(size)
    assert any("positions interpolated" in note for note in after.notes)
    assert after.model()(torch.zeros(1, 3, *size)).shape == (1, 7)


def test_another_image_size_equals_timms(tmp_path, timm):
    small = timm.create_model(
        "vit_tiny_patch16_224", reg_tokens=2, img_size=32, patch_size=8, embed_dim=64, num_heads=1
    )
    torch.save(small.state_dict(), tmp_path / "vit.pth")
    small.set_input_size((48, 24))
    images = torch.randn(1, 3, 48, 24)
    with torch.inference_mode():
        found = load_checkpoint(str(tmp_path / "vit.pth"), (48, 24)).model()(images)
        torch.testing.assert_close(found, small.eval()(images), rtol=1e-5, atol=1e-5)


def test_an_image_size_that_patches_do_not_fill_names_the_fix(tmp_path):
    with pytest.raises(SpecError) as caught:
        load_checkpoint(folder(tmp_path), (36, 32))
    assert "use image height 32" in caught.value.remedy


def test_an_unknown_family_names_the_closest():
    names = [
        "vit.embeddings.position_embeddings",
        "vit.embeddings.patch_embeddings.projection.weight",
        "x",
        "y",
        "z",
        "a",
    ]
    with pytest.raises(CheckpointError) as caught:
        identify(names, "it")
    assert f"its first tensors are {', '.join(names[:5])}" in caught.value.message
    assert "the closest is Hugging Face" in caught.value.remedy
    with pytest.raises(CheckpointError) as caught:
        identify(["layer1.conv"], "it")
    assert "does not look like a ViT" in caught.value.remedy
    with pytest.raises(CheckpointError) as inside:
        identify([*(f"net.{name}" for name in weights()), "loss.weight"], "it")
    assert "the tensors under 'net.' are a timm ViT or DeiT's" in inside.value.remedy
    assert all(family.name in caught.value.remedy for family in FAMILIES)


@given(data=st.data())
def test_tensors_that_are_missing_or_misshapen_end_in_a_checkpoint_error(tmp_path_factory, data):
    tensors = weights()
    name = data.draw(st.sampled_from(sorted(tensors)))
    damage = data.draw(st.sampled_from(["missing", "scalar", "flat", "longer", "empty"]))
    old = tensors.pop(name)
    changed = {"scalar": old.sum(), "flat": old.flatten()[:3], "longer": torch.cat([old, old]), "empty": old[:0]}
    if damage != "missing":
        tensors[name] = changed[damage].clone()
    path = tmp_path_factory.mktemp("damaged") / "vit.pth"
    torch.save(tensors, path)
    with pytest.raises((CheckpointError, SpecError)):
        load_checkpoint(str(path))


def test_a_sharded_folder_that_is_not_whole(tmp_path):
    tensors = weights()
    half = dict(list(tensors.items())[:10])
    save_file(half, tmp_path / "model-1.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    where = dict.fromkeys(tensors, "model-1.safetensors")
    index.write_text(json.dumps({"weight_map": where}))
    with pytest.raises(CheckpointError, match=r"the parts of .* lack"):
        load_checkpoint(str(tmp_path))
    for name, fault in (("../model-1.safetensors", "no file beside it"), ("gone.safetensors", "not there")):
        index.write_text(json.dumps({"weight_map": {**where, "x": name}}))
        with pytest.raises(CheckpointError, match=fault):
            load_checkpoint(str(tmp_path))


def test_archives_that_are_no_plain_arrays_are_refused(tmp_path):
    path = tmp_path / "vit.npz"
    np.savez(path, x=np.array([print], dtype=object))
    with pytest.raises(CheckpointError, match="not a readable"):
        load_checkpoint(str(path))
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(CheckpointError, match="not a readable"):
        load_checkpoint(str(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(20_000_000))
    with pytest.raises(CheckpointError, match="would fill the memory"):
        load_checkpoint(str(path))


def test_a_folder_without_weights_or_with_several(tmp_path):
    with pytest.raises(CheckpointError, match="holds no files of weights"):
        load_checkpoint(str(tmp_path))
    for name in ("a.pth", "b.pth"):
        torch.save(weights(), tmp_path / name)
    with pytest.raises(CheckpointError, match="holds 2 files") as caught:
        load_checkpoint(str(tmp_path))
    assert "a.pth, b.pth" in caught.value.remedy


def test_names_that_training_put_a_prefix_to(tmp_path):
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights().items()}}, tmp_path / "ddp.pth")
    assert load_checkpoint(str(tmp_path / "ddp.pth")).spec == SPEC


def test_only_an_embedding_model_is_normalised(tmp_path):
    embedding = load_checkpoint(folder(tmp_path, tensors={
        name: tensor for name, tensor in weights().items() if not name.startswith("head")
    })).normalized()  # fmt: skip
    features = embedding.model()(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, 64)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    with pytest.raises(SpecError, match="which normalises no features"):
        load_checkpoint(folder(tmp_path)).normalized()


def test_an_embedding_models_bundle(tmp_path):
    headless = {name: tensor for name, tensor in weights(depth=1).items() if not name.startswith("head")}
    loaded = load_checkpoint(folder(tmp_path, tensors=headless), (16, 24)).normalized()
    bundle = export(loaded, tmp_path / "embedding.edgevit", DataSource("shapes", "test", Unreadable(), samples=4))
    assert bundle.golden().logits.shape[1] == loaded.spec.outputs == 64
    with load(bundle.path) as model:
        features = model.infer(np.zeros((2, 3, 16, 24), dtype=np.float32))
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
        image = bundle.golden().images[0]
        assert model.embed(image).shape == (64,)
        np.testing.assert_allclose(model.embed_batch([image] * 33)[32], model.embed(image), atol=1e-5)
        assert model.embed_batch([]).shape == (0, 64)
        with pytest.raises(InputError, match="no classes: it gives features") as caught:
            model.predict(image)
        assert "embed()" in caught.value.remedy
    bundle, _ = validate(bundle, DataSource("shapes", "test", Unreadable(), samples=4))
    assert bundle.variant("float32").accuracy.similarity.cosine_mean == pytest.approx(1)
