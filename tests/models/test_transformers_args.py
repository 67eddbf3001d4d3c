"""Keys of transformers' configs: all of its own are known, and what is not understood is refused by name."""

import importlib
import json

import pytest
import torch

from edgevit.errors import CheckpointError, EdgeViTError
from edgevit.models.loading import load_checkpoint
from edgevit.models.transformers_args import KNOWN

transformers = importlib.import_module("transformers")

CONFIGS = (
    "DINOv3ViTConfig", "BeitConfig", "Data2VecVisionConfig", "IJepaConfig", "ViTMAEConfig",
    "ViTConfig", "ViTMSNConfig", "DeiTConfig", "Dinov2Config", "Dinov2WithRegistersConfig", "CLIPVisionConfig",
    "SiglipVisionConfig", "MetaClip2VisionConfig", "ChineseCLIPVisionConfig", "AltCLIPVisionConfig", "CLIPConfig",
    "SiglipConfig", "MetaClip2Config", "ChineseCLIPConfig", "AltCLIPConfig",
)  # fmt: skip
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_of_transformers_own_configs_is_known(name):
    assert getattr(transformers, name)().to_dict().keys() <= KNOWN


def saved(folder, model, **changes):
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def vit(**options):
    config = transformers.ViTConfig(**TINY, intermediate_size=64, num_labels=3, **options)
    return transformers.ViTForImageClassification(config).eval()


def dinov2(kind="Dinov2", **options):
    config = getattr(transformers, f"{kind}Config")(**TINY, num_labels=3, **options)
    return getattr(transformers, f"{kind}ForImageClassification")(config).eval()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_rotary": True}, "use_rotary=True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"qkv_bias": False}, "qkv_bias is False"),
        ({"hidden_act": "mish"}, "'mish'"),
        ({"num_register_tokens": 4}, "num_register_tokens is 4"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ],
)
def test_what_changes_the_computation_and_is_not_implemented_is_refused(tmp_path, changes, words):
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(str(saved(tmp_path, vit(), **changes)))


@pytest.mark.parametrize(
    "model",
    [
        lambda: vit(qkv_bias=False),
        lambda: vit(hidden_act="relu", layer_norm_eps=1e-3),
        lambda: dinov2(use_swiglu_ffn=True),
        lambda: dinov2(layerscale_value=0.1),
        lambda: dinov2("Dinov2WithRegisters", num_register_tokens=2),
    ],
    ids=["no-qkv-bias", "relu", "swiglu", "layerscale", "registers"],
)
def test_what_a_config_says_gives_transformers_answers(tmp_path, model):
    torch.manual_seed(0)
    made = model()
    images = torch.randn(3, 3, 16, 16)
    with torch.inference_mode():
        expected = made(images).logits
        found = load_checkpoint(str(saved(tmp_path, made))).model()(images)
    assert torch.allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_attention_heads": 0}, "heads is 0"),
        ({"layer_norm_eps": 0}, "norm_epsilon is 0"),
        ({"architectures": 5}, "architectures"),
        ({"hidden_act": 5}, "hidden_act"),
        ({"vision_config": 5}, "vision_config"),
    ],
)
def test_values_that_cannot_be_are_not_taken_for_the_default(tmp_path, changes, words):
    with pytest.raises(EdgeViTError, match=words):
        load_checkpoint(str(saved(tmp_path, vit(), **changes)))


def test_old_configs_of_text_settings_are_read(tmp_path):
    old = {"num_beams": 1, "top_k": 50, "torch_dtype": "float32", "pruned_heads": {}, "finetuning_task": None}
    assert load_checkpoint(str(saved(tmp_path, vit(), **old))).spec.classes == 3


def test_a_class_that_answers_in_another_way_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="'ViTForAges'"):
        load_checkpoint(str(saved(tmp_path, vit(), architectures=["ViTForAges"])))


def test_a_classifier_on_clip_is_refused_where_nothing_says_what_it_reads(tmp_path):
    """transformers' reads the mean of patches that the last norm has not seen; others the class token."""
    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.CLIPConfig(
        text_config={**tower, "vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1},
        vision_config={**tower, "image_size": 16, "patch_size": 8},
        num_labels=3,
    )
    saved(tmp_path, transformers.CLIPForImageClassification(config))
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="CLIPForImageClassification"):
        load_checkpoint(str(tmp_path))
