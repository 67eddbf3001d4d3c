"""What configs say of an architecture: heeded as timm and transformers heed it, or refused by name."""

import functools
import importlib
import json

import pytest
import timm_table
import torch
import transformers
from safetensors.torch import save_file
from zoo import randomise

from edgevit.errors import CheckpointError
from edgevit.models.loading import load_checkpoint


def test_the_table_is_timms(timm, request):
    found = timm_table.text(timm_table.table(timm))
    if request.config.getoption("--write-docs"):
        timm_table.PATH.write_text(found)
    assert timm_table.PATH.read_text() == found


SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_classes": 3}


def vit(timm, **changes):
    if "mlp_layer" in changes:
        changes["mlp_layer"] = getattr(timm.layers, changes["mlp_layer"])
    return randomise(timm.models.vision_transformer.VisionTransformer(**{"num_heads": 1, **SIZES, **changes}))


def written(folder, model, config):
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("built", "said"),
    [
        ({"num_heads": 4}, {"model_args": {**SIZES, "num_heads": 4}}),
        ({"global_pool": "max", "fc_norm": False}, {"global_pool": "max"}),
        ({"global_pool": "avgmax"}, {"model_args": {"global_pool": "avgmax"}}),
        ({"global_pool": "token", "fc_norm": True}, {"model_args": {"global_pool": "token", "fc_norm": True}}),
        *(({"act_layer": name}, {"model_args": {"act_layer": name}}) for name in ("relu", "silu", "quick_gelu")),
        *(
            ({"mlp_layer": name, **act}, {"model_args": {"mlp_layer": name, **act}})
            for name in ("GluMlp", "SwiGLUPacked")
            for act in ({}, {"act_layer": "silu"}, {"act_layer": "sigmoid"})
        ),
        ({"act_layer": "gelu_tanh"}, {"model_args": {"act_layer": "gelu_tanh", "drop_path_rate": 0.1}}),
    ],
)
def test_what_timms_config_says_is_heeded(timm, tmp_path, built, said):
    model = vit(timm, **built)
    loaded = load_checkpoint(written(tmp_path, model, {"architecture": "vit_tiny_patch16_224", **said}))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model()(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"architecture": "vit_base_patch16_rpn_224"}, "block_fn='respostblock'"),
        ({"architecture": "vit_base_patch16_xp_224"}, "vit_base_patch16_xp_224"),
        ({"architecture": "eva02_tiny_patch14_224"}, r"swiglu_mlp is True \(of eva02_tiny_patch14_224\)"),
        ({"architecture": "swin_tiny_patch4_window7_224"}, "'swin_tiny_patch4_window7_224'"),
        ({"global_pool": "prr"}, "global_pool='prr'"),
        ({"model_args": {"act_layer": "mish"}}, "act_layer='mish'"),
        ({"model_args": {"norm_layer": "rmsnorm"}}, "norm_layer='rmsnorm'"),
        ({"model_args": {"qk_norm": True}}, "qk_norm is True, the weights have False"),
        ({"model_args": {"rope": 7}}, "rope=7"),
        ({"model_args": {"depth": 3}}, "depth is 3, the weights have 2"),
        *(({"model_args": {"num_heads": value}}, f"num_heads={value!r}") for value in ("many", 0, 1.0, True)),
        *(({"model_args": {"norm_eps": value}}, f"norm_eps={value!r}") for value in ("1e-6", 0, -1e-6)),
        ({"model_args": {"img_size": "32"}}, "img_size='32'"),
        ({"model_args": {"img_size": [3, 32, 32]}}, r"img_size=\[3, 32, 32\]"),
        ({"model_args": {"patch_size": "8"}}, "patch_size is '8', the weights have"),
        ({"architecture": "vit_tiny_patch16_224", "num_heads": 2}, "num_heads=2 outside of model_args"),
        ({"act_layer": "relu", "model_args": {"act_layer": "silu"}}, "act_layer='relu' outside of model_args"),
        ({"qk_norm": True}, "qk_norm is True, the weights have False"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(timm, tmp_path, config, fault):
    with pytest.raises(CheckpointError, match=fault):
        load_checkpoint(written(tmp_path, vit(timm), config))


def test_arguments_that_a_trainer_wrote_beside_model_args_are_heeded(timm, tmp_path):
    norm = functools.partial(torch.nn.LayerNorm, eps=1e-2)
    model = vit(timm, num_heads=4, act_layer="relu", norm_layer=norm)
    config = {"num_attention_heads": 4, "hidden_act": "relu", "layer_norm_eps": 1e-2}
    loaded = load_checkpoint(written(tmp_path, model, config))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model()(images), model(images), rtol=1e-4, atol=1e-4)


def test_features_of_a_distilled_model_are_timms(timm, tmp_path):
    model = randomise(timm.models.deit.VisionTransformerDistilled(**{"num_heads": 1, **SIZES, "num_classes": 0}))
    config = {"architecture": "deit_tiny_distilled_patch16_224", "num_classes": 0}
    loaded = load_checkpoint(
        written(tmp_path, model, {**config, "model_args": {**SIZES, "num_classes": 0, "num_heads": 1}})
    )
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model()(images), model(images), rtol=1e-4, atol=1e-4)


def test_heads_that_nothing_tells_are_said_with_the_others_of_that_width(timm, tmp_path):
    path = written(tmp_path, vit(timm, embed_dim=384, num_heads=12, depth=1), None)
    loaded = load_checkpoint(path)
    assert any("assumed 6 attention heads" in note and "--heads 12" in note for note in loaded.notes)
    assert load_checkpoint(path, heads=12).spec.heads == 12


def test_heads_against_the_config_are_refused(timm, tmp_path):
    path = written(tmp_path, vit(timm, num_heads=4), {"model_args": {"num_heads": 4}})
    with pytest.raises(CheckpointError, match="has 4 attention heads"):
        load_checkpoint(path, heads=2)


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters"])
def test_positions_at_another_size_are_transformers(tmp_path, kind):
    sizes = {"image_size": 56, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = randomise(getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes)))
    model.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loaded = load_checkpoint(str(tmp_path), (32, 32))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model()(images), model(images).pooler_output, rtol=1e-4, atol=1e-4)


def test_positions_of_vit_at_another_size_are_transformers(tmp_path):
    sizes = {"image_size": 48, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(**sizes, intermediate_size=64, num_labels=3)
    model = randomise(transformers.ViTForImageClassification(config))
    model.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    loaded = load_checkpoint(str(tmp_path), (32, 64))
    with torch.no_grad():
        expected = model(images, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(loaded.model()(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (48, 32)])
def test_positions_at_another_size_are_timms(timm, tmp_path, size):
    model = randomise(vit(timm))
    path = written(tmp_path, model, {"architecture": "vit_tiny_patch16_224"})
    prepare = importlib.import_module("timm.models.vision_transformer").checkpoint_filter_fn
    larger = vit(timm, img_size=size)
    larger.load_state_dict(prepare(model.state_dict(), larger))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = load_checkpoint(path, size, heads=None).model()(images)
        torch.testing.assert_close(found, larger.eval()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.shared
def test_dinov2_small_at_224_answers_as_transformers(shared):
    folder = shared / "models" / "dinov2_small"
    model = transformers.Dinov2Model.from_pretrained(folder, dtype=torch.float64).eval()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images.double()).pooler_output
        found = load_checkpoint(str(folder), (224, 224)).model().double()(images.double())
    noise = (found - expected).square().sum() / expected.square().sum()
    assert noise < 1e-10  # 100 dB: positions are interpolated in float32
