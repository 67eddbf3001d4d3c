"""The golden check against the source's own library."""

import importlib
import json

import numpy as np
import pytest
import torch
from oracles import import_timm
from safetensors.torch import save_file

from edgevit.errors import CheckpointError, InputError, VerificationError
from edgevit.models.loading import load_checkpoint
from edgevit.stages.peers import check_equal, peer_called

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)


def compare(source, name):
    loaded = load_checkpoint(str(source))
    found = loaded.model()(torch.from_numpy(IMAGES)).detach().numpy()
    peer = peer_called(name, str(source), loaded, raw_weights=False)
    check_equal(peer, IMAGES, found)
    return peer, found


def test_timms_model_answers_the_same_and_another_does_not(tmp_path):
    args = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 1, "num_heads": 1}
    model = import_timm().create_model("vit_tiny_patch16_224", num_classes=3, **args)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="nothing says which of timm's"):
        compare(tmp_path, "timm")
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": args}
    (tmp_path / "config.json").write_text(json.dumps(config))
    peer, found = compare(tmp_path, "timm")
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
    compare(tmp_path, "transformers")
