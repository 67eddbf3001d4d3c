"""The golden check against the source's own library."""

import importlib
import json

import numpy as np
import pytest
from oracles import import_timm

from edgevit.errors import CheckpointError, InputError, VerificationError
from edgevit.models.outputs import Output
from edgevit.stages.peers import Peer, check_equal, peer_called

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)


def compare(source, name):
    import torch

    from edgevit.models.loading import load_checkpoint

    loaded = load_checkpoint(str(source))
    found = loaded.model()(torch.from_numpy(IMAGES)).detach().numpy()
    peer = peer_called(name, str(source), loaded, raw_weights=False)
    check_equal(peer, IMAGES, found)
    return peer, found


def test_timms_model_answers_the_same_and_another_does_not(tmp_path):
    from safetensors.torch import save_file

    args = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 1, "num_heads": 1}
    model = import_timm().create_model("vit_tiny_patch16_224", num_classes=3, **args)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="nothing says which of timm's"):
        compare(tmp_path, "timm")
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": args}
    (tmp_path / "config.json").write_text(json.dumps(config))
    peer, found = compare(tmp_path, "timm")
    assert peer.note is None, "timm has read the file"
    with pytest.raises(VerificationError, match="does not answer as timm's"):
        check_equal(peer, IMAGES, found + 0.1)
    with pytest.raises(InputError, match="knows no library"):
        compare(tmp_path, "tim")


def test_transformers_model_answers_the_same(tmp_path):
    transformers = importlib.import_module("transformers")
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=128, image_size=32, patch_size=8,
        num_labels=3,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    peer, _ = compare(tmp_path, "transformers")
    assert peer.note is None, "transformers has read the folder"


ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 1, "num_heads": 1}


def write_training(folder, content):
    import torch

    torch.save(content, folder / "last.pth.tar")
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": ARGS}
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "last.pth.tar"


def test_averaged_weights_are_chosen_as_timm_itself_chooses_them(tmp_path):
    import torch

    from edgevit.models.loading import load_checkpoint

    models = [import_timm().create_model("vit_tiny_patch16_224", num_classes=3, **ARGS) for _ in range(2)]
    raw, averaged = ({name: value + 0.05 for name, value in model.state_dict().items()} for model in models)
    source = write_training(tmp_path, {"state_dict": raw, "state_dict_ema": averaged, "epoch": 3})
    peer, _ = compare(source, "timm")
    assert peer.note is None
    other = load_checkpoint(str(source), raw_weights=True).model()(torch.from_numpy(IMAGES)).detach().numpy()
    with pytest.raises(VerificationError, match="does not answer as timm's"):
        check_equal(peer, IMAGES, other)


def test_a_file_that_the_library_cannot_read_is_said_to_be_read_by_edgevit(tmp_path):
    model = import_timm().create_model("vit_tiny_patch16_224", num_classes=3, **ARGS)
    source = write_training(
        tmp_path, {"state_dict": {f"net.{name}": value for name, value in model.state_dict().items()}}
    )
    peer, _ = compare(source, "timm")
    assert "timm does not read" in peer.note


def test_a_peer_that_gives_probabilities_is_compared_with_those_of_the_logits():
    logits = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    check_equal(Peer("own", lambda _: shares, activation="softmax"), IMAGES, logits)
    for peer in (Peer("own", lambda _: shares), Peer("own", lambda _: shares[::-1], activation="softmax")):
        with pytest.raises(VerificationError):
            check_equal(peer, IMAGES, logits)


def test_a_peer_whose_probabilities_are_all_small_is_compared_as_well():
    logits = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32) - 15
    rare = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
    check_equal(Peer("own", lambda _: rare, activation="sigmoid"), IMAGES, logits)
    with pytest.raises(VerificationError, match=r"differ by up to 0\.05"):
        check_equal(Peer("own", lambda _: rare, activation="sigmoid"), IMAGES, logits + np.float32(0.05))


def test_each_output_of_a_peer_has_a_measure_of_its_own():
    outputs = (
        Output(name="depth", kind="depth", shape=(2, 2), dims=("height", "width")),
        Output(name="small", kind="embedding", shape=(3,), dims=("width",)),
    )
    rows = np.random.default_rng(1).normal(size=(4, 7)).astype(np.float32)
    rows[:, :4] *= 1e4
    for size in (1, 1e-3):
        given, found = rows.copy(), rows.copy()
        given[:, 4:] *= size
        found[:, 4:] *= 1.0005 * size
        peer = Peer("own", lambda _, given=given: given, outputs=outputs)
        check_equal(peer, IMAGES, given)
        check_equal(peer, IMAGES, found + np.float32([1] * 4 + [0] * 3))
        found[:, 4:] *= 1.5
        with pytest.raises(VerificationError, match="small differ by up to"):
            check_equal(peer, IMAGES, found)
