"""What makes probabilities of a checkpoint's logits, with timm and transformers as the oracle."""

import importlib
import json

import numpy as np
import pytest
import torch
from oracles import import_timm
from safetensors.torch import save_file

from edgevit.errors import CheckpointError, InputError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.loading import load_checkpoint
from edgevit.training.heads import fit_head

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 1, "num_heads": 1}


def timm_folder(folder, classes, **config):
    model = import_timm().create_model("vit_tiny_patch16_224", num_classes=classes, **ARGS).eval()
    save_file(model.state_dict(), folder / "model.safetensors")
    said = {"architecture": "vit_tiny_patch16_224", "num_classes": classes, "model_args": ARGS, **config}
    (folder / "config.json").write_text(json.dumps(said))
    return model


def hugging_face_folder(folder, classes, **config):
    transformers = importlib.import_module("transformers")
    made = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=128, image_size=32, patch_size=8,
        num_labels=classes, **config,
    )  # fmt: skip
    transformers.ViTForImageClassification(made).save_pretrained(folder)


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ({}, ("0", "1")),
        ({"label_names": ["dog"]}, ("not dog", "dog")),
        ({"label_names": ["cat", "dog"]}, ("cat", "dog")),
    ],
)
def test_a_single_logit_is_a_yes_or_no(tmp_path, names, labels):
    timm_folder(tmp_path, 1, **names)
    loaded = load_checkpoint(str(tmp_path))
    assert (loaded.activation, loaded.labels) == ("sigmoid", labels)
    assert any("assumed a binary classifier" in note for note in loaded.notes)
    with pytest.raises(InputError, match="softmax is always 1"):
        load_checkpoint(str(tmp_path), activation="softmax")


@pytest.mark.parametrize(
    ("problem", "activation"),
    [("multi_label_classification", "sigmoid"), ("single_label_classification", "softmax"), (None, "softmax")],
)
def test_transformers_config_says_how_labels_are_decided(tmp_path, problem, activation):
    hugging_face_folder(tmp_path, 3, problem_type=problem)
    assert load_checkpoint(str(tmp_path)).activation == activation
    other = "softmax" if activation == "sigmoid" else "sigmoid"
    assert load_checkpoint(str(tmp_path), activation=other).activation == other


def test_a_regression_is_refused_until_the_user_says_otherwise(tmp_path):
    hugging_face_folder(tmp_path, 1, problem_type="regression")
    with pytest.raises(CheckpointError, match="problem_type='regression'"):
        load_checkpoint(str(tmp_path))
    assert load_checkpoint(str(tmp_path), activation="sigmoid").activation == "sigmoid"


def test_features_have_no_probabilities(tmp_path):
    timm_folder(tmp_path, 0)
    with pytest.raises(InputError, match="gives features"):
        load_checkpoint(str(tmp_path), activation="sigmoid")


def test_a_saved_checkpoint_keeps_it(tmp_path):
    timm_folder(tmp_path, 3)
    load_checkpoint(str(tmp_path), activation="sigmoid").save(tmp_path / "own.safetensors")
    assert load_checkpoint(str(tmp_path / "own.safetensors")).activation == "sigmoid"
    assert load_checkpoint(str(tmp_path / "own.safetensors"), activation="softmax").activation == "softmax"


def test_fine_tuning_begins_with_the_same_probabilities(tmp_path):
    timm_folder(tmp_path, 1, label_names=["cat", "dog"])
    loaded = load_checkpoint(str(tmp_path))
    fitted, said = fit_head(loaded, ("dog", "cat"))
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32))
    with torch.inference_mode():
        one, two = loaded.model()(images), fitted.model()(images)
    assert isinstance(fitted, Checkpoint)
    assert "kept" in said
    assert fitted.activation == "softmax"
    dog = fitted.labels.index("dog")
    assert torch.allclose(two.softmax(dim=1)[:, dog], one[:, 0].sigmoid(), atol=1e-6)
