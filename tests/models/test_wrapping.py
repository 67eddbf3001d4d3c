"""What trainings save around and beside a model: found, said, or refused."""

import argparse
import collections
import datetime
import pathlib
import zipfile

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgevit.errors import CheckpointError
from edgevit.models.loading import load_checkpoint
from edgevit.models.spec import ModelSpec
from edgevit.models.vit import VisionTransformer

SPEC = ModelSpec(image_size=(16, 16), patch_size=(8, 8), width=64, depth=1, heads=1, classes=3)


def weights(seed=0, **changes):
    torch.manual_seed(seed)
    return VisionTransformer(msgspec.structs.replace(SPEC, **changes)).state_dict()


def under(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def read(tmp_path, content, **options):
    torch.save(content, tmp_path / "vit.pth")
    return load_checkpoint(str(tmp_path / "vit.pth"), **options)


def same(checkpoint, tensors):
    return all(torch.equal(checkpoint.weights[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "ema_state_dict", "params_ema", "average"])
def test_averaged_weights_are_taken_and_said(tmp_path, key):
    raw, averaged = weights(0), weights(1)
    found = read(tmp_path, {"epoch": 3, "state_dict": raw, key: averaged})
    assert same(found, averaged)
    assert any("averaged" in note and "--raw-weights" in note for note in found.notes)
    found = read(tmp_path, {"epoch": 3, "state_dict": raw, key: averaged}, raw_weights=True)
    assert same(found, raw)
    assert any("not the averaged ones" in note for note in found.notes)


def test_an_average_inside_of_a_lightning_module(tmp_path):
    raw, averaged = weights(0), weights(1)
    content = {"state_dict": {**under("model.", raw), **under("ema.module.", averaged)}}
    assert same(read(tmp_path, content), averaged)


@pytest.mark.parametrize(
    "prefix", ["model._orig_mod.", "_orig_mod.module.", "net.", "backbone.", "encoder.", "a.b.c.", "module.module."]
)
def test_prefixes_unwrap_until_nothing_changes(tmp_path, prefix):
    assert same(read(tmp_path, {"state_dict": under(prefix, weights())}), weights())


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("model.", {"criterion.weight": torch.ones(3)}),
        ("", {"criterion.pos_weight": torch.tensor(3.2)}),
        ("module.", {"n_averaged": torch.tensor(5)}),
        ("net.", {"loss_fn.weight": torch.ones(3), "train_acc.tp": torch.zeros(3, dtype=torch.long)}),
        ("model.", under("teacher.", weights(1))),
        ("", under("teacher.", weights(1))),
    ],
)
def test_what_is_no_part_of_the_model_is_left_out_and_named(tmp_path, prefix, beside):
    found = read(tmp_path, {**under(prefix, weights()), **beside})
    assert same(found, weights())
    assert any("left out" in note or "averaged" in note for note in found.notes)


def test_two_models_are_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="'student' and 'teacher'"):
        read(tmp_path, {"student": weights(0), "teacher": weights(1)})


@pytest.mark.parametrize(
    "head", ["heads", "heads.0", "head.1", "fc", "classifier", "head.fc", "linear", "classifier.1"]
)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_head_by_another_name_is_used_and_said(tmp_path, head, prefix):
    content = {
        f"{head}.{name.removeprefix('head.')}" if name.startswith("head.") else prefix + name: tensor
        for name, tensor in weights().items()
    }
    found = read(tmp_path, content)
    assert same(found, weights())
    assert any(f"took {head}.weight and {head}.bias for the head" in note for note in found.notes)


def test_several_heads_are_refused_with_their_names(tmp_path):
    content = {name: tensor for name, tensor in weights().items() if not name.startswith("head.")}
    for number in (0, 2):
        content |= {f"classifier.{number}.weight": torch.ones(64, 64), f"classifier.{number}.bias": torch.ones(64)}
    with pytest.raises(CheckpointError, match=r"looks like its head: classifier\.0\.bias") as caught:
        read(tmp_path, content)
    assert "rename" in caught.value.remedy


def test_a_model_that_prepares_its_images_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="prepares its images itself"):
        read(tmp_path, {"0.mean": torch.ones(1, 3, 1, 1), **under("1.", weights())})


@pytest.mark.parametrize(
    "value",
    [
        np.float64(81.2), np.int64(7), np.bool_(True), np.dtype("float32"), np.arange(3.0), pathlib.Path("a"),
        collections.defaultdict(list, a=[1]), collections.deque([1]), argparse.Namespace(path=pathlib.Path("a")),
        datetime.date(2026, 1, 1), slice(1, 2),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_beside_the_weights_are_passed_over(tmp_path, value):
    assert same(read(tmp_path, {"model": weights(), "beside": value}), weights())


def test_an_unknown_wrapping_lists_the_keys(tmp_path):
    with pytest.raises(CheckpointError, match="with the keys epoch, things"):
        read(tmp_path, {"epoch": 1, "things": {"conv.weight": torch.ones(3)}})
    with pytest.raises(CheckpointError, match="its keys are epoch"):
        read(tmp_path, {"epoch": 1})


def test_archives_that_are_malformed_or_too_large_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("cls_token", b"no array")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive, archive.open("x.npy", "w") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 31,)}
        np.lib.format.write_array_header_1_0(file, header)
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        for name, content in (("data.pkl", b"\x80\x02K\x01Q."), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"a/{name}", content)
    for name in ("a.npz", "b.npz", "c.pth"):
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(str(tmp_path / name))


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("google/vit-base-patch16-224", "hf://google/vit-base-patch16-224"),
        ("vit_tiny_patch16_224.augreg_in21k", "hf://timm/vit_tiny_patch16_224.augreg_in21k"),
    ],
)
def test_names_on_the_hub_are_explained(source, hint):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(source)
    assert hint in caught.value.remedy


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".onnx"])
def test_the_name_of_a_file_is_not_taken_for_one_on_the_hub(suffix):
    for name in ("deit_tiny_patch16_224", "weights/mine"):
        with pytest.raises(CheckpointError, match="there is no checkpoint at") as caught:
            load_checkpoint(name + suffix)
        assert caught.value.remedy == "check its path: the name is a file's"


def test_the_average_that_a_callback_keeps_is_taken(tmp_path):
    raw, averaged = weights(0), weights(1)
    callbacks = {"EMACallback": {"ema_state_dict": under("model.", averaged)}, "Early": {"best_score": torch.ones(())}}
    content = {"state_dict": under("model.", raw), "callbacks": callbacks}
    assert same(read(tmp_path, content), averaged)
    assert same(read(tmp_path, content, raw_weights=True), raw)


def test_lightnings_averaging_puts_the_average_in_the_models_place(tmp_path):
    raw, averaged = weights(0), weights(1)
    content = {
        "state_dict": under("model.", averaged),
        "averaging_state": {"n_averaged": torch.tensor(4)},
        "current_model_state": under("model.", raw),
    }
    assert same(read(tmp_path, content), averaged)
    assert same(read(tmp_path, content, raw_weights=True), raw)


def test_averages_that_have_not_the_models_names_are_said(tmp_path):
    raw, averaged = weights(0), weights(1)
    listed = read(tmp_path, {"model": raw, "ema": {"decay": 0.9, "shadow_params": list(averaged.values())}})
    assert any("'ema.shadow_params' are a list" in note for note in listed.notes)
    joined = {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in averaged.items()}
    found = read(tmp_path, {"state_dict": {**under("model.", raw), **joined}})
    assert any("not the model's were not taken" in note for note in found.notes)
    assert same(found, raw)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_in_whole_numbers_are_refused(tmp_path, suffix):
    """Their scales are lost or elsewhere: taken as they are they would be a hundred times too large."""
    content = weights()
    content["blocks.0.mlp.fc1.weight"] = (content["blocks.0.mlp.fc1.weight"] * 100).to(torch.int8)
    path = tmp_path / f"vit{suffix}"
    torch.save(content, path) if suffix == ".pth" else save_file(content, path)
    with pytest.raises(CheckpointError, match=r"fc1\.weight: torch\.int8"):
        load_checkpoint(str(path))


@pytest.mark.parametrize("name", ["temperature", "head.s", "logit_scale"])
def test_a_number_that_scales_the_logits_is_refused(tmp_path, name):
    with pytest.raises(CheckpointError, match=rf"{name} is 2\.0"):
        read(tmp_path, {**weights(), name: torch.tensor(2.0)})
    assert same(read(tmp_path, {**weights(classes=0), "temperature": torch.tensor(2.0)}), weights(classes=0))


@pytest.mark.parametrize("name", ["pixel_mean", "image_std"])
def test_statistics_of_images_beside_a_model_are_refused(tmp_path, name):
    with pytest.raises(CheckpointError, match="prepares its images itself"):
        read(tmp_path, {"model": weights(), name: torch.zeros(3)})


def test_a_head_without_a_bias_has_a_remedy(tmp_path):
    content = weights()
    del content["head.bias"]
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, content)
    assert "zeros as head.bias" in caught.value.remedy
