"""What does not load from weights is refused with the way that works, by name where a config tells."""

import importlib
import json

import pytest
import torch
from safetensors.torch import save_file
from zoo_modules import MODULES

from edgevit.errors import CheckpointError
from edgevit.models.loading import load_checkpoint

LIGHT = [
    case for case in MODULES if case.family in ("Swin", "Swin V2", "Hiera", "TinyViT", "MobileViT", "CaiT", "XCiT")
]


@pytest.mark.parametrize("case", LIGHT, ids=lambda case: case.family)
def test_the_way_is_named(case, tmp_path):
    weights = {name: tensor.contiguous().clone() for name, tensor in case.build().state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as alone:
        load_checkpoint(str(tmp_path))
    assert "edgevit.export(model, 'model.edgevit', input_shape=(3, 224, 224))" in alone.value.remedy
    (tmp_path / "config.json").write_text(json.dumps({"architecture": f"{case.architecture}.tag"}))
    with pytest.raises(CheckpointError) as named:
        load_checkpoint(str(tmp_path))
    assert case.architecture in str(named.value.message)
    assert f"edgevit.export(timm.create_model('{case.architecture}', pretrained=True).eval()" in named.value.remedy


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        ("vit_pe_core_tiny_patch16_384", "attn_pool_"),
        ("eva02_enormous_patch14_clip_224", "use_post_norm=True"),
        ("vit_base_patch16_sapiens2", "="),
    ],
)
def test_what_timm_builds_otherwise_is_named_with_its_value(architecture, key, tmp_path, timm):
    options = {"img_size": 32, "patch_size": 16, "embed_dim": 48, "num_heads": 12}
    options |= {} if "sapiens2" in architecture else {"depth": 1}
    model = timm.create_model(architecture, pretrained=False, num_classes=3, **options)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": architecture}))
    with pytest.raises(CheckpointError, match=key) as failed:
        load_checkpoint(str(tmp_path))
    assert f"timm.create_model('{architecture}'" in failed.value.remedy


def test_names_that_two_models_of_timms_share_are_not_guessed(tmp_path, timm):
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "num_heads": 2, "depth": 1}
    for architecture in ("vit_small_patch16_rope_224", "vit_small_patch16_rope_mixed_ape_224"):
        model = timm.create_model(architecture, pretrained=False, **sizes)
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError) as failed:
            load_checkpoint(str(tmp_path))
        assert "config.json" in failed.value.remedy


def test_a_model_of_transformers_is_named_with_its_class(tmp_path):
    transformers = importlib.import_module("transformers")
    sizes = {"image_size": 32, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2}
    torch.manual_seed(0)
    model = transformers.SwinForImageClassification(transformers.SwinConfig(**sizes, num_labels=3))
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="transformers' SwinForImageClassification") as failed:
        load_checkpoint(str(tmp_path))
    assert (
        f"edgevit.export(transformers.SwinForImageClassification.from_pretrained('{tmp_path}')" in failed.value.remedy
    )


def test_relative_positions_hold_for_one_size(tmp_path, timm):
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "num_heads": 2, "depth": 1}
    save_file(timm.create_model("beit_base_patch16_224", **sizes).state_dict(), tmp_path / "model.safetensors")
    from edgevit.errors import SpecError

    with pytest.raises(SpecError, match="relative to one another"):
        load_checkpoint(str(tmp_path), (64, 64))


@pytest.mark.parametrize("size", [(32, 64), (96, 48)])
def test_rotary_positions_at_another_size_are_timms(size, tmp_path, timm):
    sizes = {"patch_size": 16, "embed_dim": 64, "num_heads": 2, "depth": 2, "num_classes": 5}
    for number, architecture in enumerate(("vit_small_patch16_dinov3", "eva02_tiny_patch14_224")):
        torch.manual_seed(number)
        model = timm.create_model(architecture, img_size=32, **sizes).eval()
        torch.nn.init.normal_(model.head.weight, std=0.1)
        (folder := tmp_path / architecture).mkdir()
        save_file(model.state_dict(), folder / "model.safetensors")
        said = {"architecture": architecture, "model_args": {**sizes, "img_size": 32}}
        (folder / "config.json").write_text(json.dumps(said))
        images = torch.randn(2, 3, *size)
        loaded = load_checkpoint(str(folder), size)
        model.set_input_size(size)
        with torch.no_grad():
            expected = model(images)
            assert expected.std() > 0.02
            torch.testing.assert_close(loaded.model()(images), expected, rtol=1e-4, atol=1e-4)


def test_dinov3_at_another_size_is_transformers(tmp_path):
    transformers = importlib.import_module("transformers")
    sizes = {"image_size": 64, "patch_size": 16, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**sizes, num_register_tokens=2)).eval()
    model.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 96, 48)
    with torch.no_grad():
        found = load_checkpoint(str(tmp_path), (96, 48)).model()(images)
        torch.testing.assert_close(found, model(images).pooler_output, rtol=1e-4, atol=1e-4)
