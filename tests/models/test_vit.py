import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgevit.models.positions import interpolate_positions
from edgevit.models.spec import PRESETS, ModelSpec
from edgevit.models.vit import VisionTransformer, sincos_positions


def make(**changes) -> VisionTransformer:
    fields = {"image_size": (16, 24), "patch_size": (4, 8), "width": 32, "depth": 2, "heads": 4, "classes": 5}
    torch.manual_seed(0)
    return VisionTransformer(ModelSpec(**{**fields, **changes})).eval()


@settings(deadline=None, max_examples=20)
@given(
    patch=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.sampled_from([1, 3, 4]),
)
def test_the_strided_convolution_is_the_linear_map_of_flattened_patches(patch, grid, channels):
    model = make(image_size=(patch[0] * grid[0], patch[1] * grid[1]), patch_size=patch, channels=channels)
    images = torch.randn(2, channels, *model.spec.image_size)
    torch.testing.assert_close(model.patch_embed(images), model.patch_embed.as_linear(images))


def test_the_linear_map_is_vw_plus_b_patch_by_patch():
    model = make()
    image = torch.randn(1, 3, 16, 24)
    weight = model.patch_embed.proj.weight.flatten(1).T  # (P, D)
    for row, column in ((0, 0), (1, 2), (3, 1)):
        vector = image[0, :, row * 4 : row * 4 + 4, column * 8 : column * 8 + 8].reshape(-1)  # V, (P,)
        token = model.patch_embed(image)[0, row * 3 + column]
        torch.testing.assert_close(token, vector @ weight + model.patch_embed.proj.bias)


def test_shapes():
    model = make()
    images = torch.randn(3, 3, 16, 24)
    assert model.forward_features(images).shape == (3, 1 + 12, 32)
    assert model(images).shape == (3, 5)


def test_it_is_pre_norm_with_layer_norm_only():
    model = make()
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    block, tokens = model.blocks[0], torch.randn(1, 13, 32)
    for linear in (block.attn.proj, block.mlp.fc2):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    torch.testing.assert_close(block(tokens), tokens)  # what comes in passes through untouched


def test_positions_are_added_and_the_class_token_has_its_own():
    model = make(depth=1)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 16, 24)
    model(images)
    torch.testing.assert_close(seen[0][:, 1:], model.patch_embed(images) + model.pos_embed[:, 1:])
    torch.testing.assert_close(seen[0][:, 0], (model.cls_token[0] + model.pos_embed[0, :1]).expand(2, -1))


def test_attention_equals_torchs_own():
    model = make(depth=1)
    attention, tokens = model.blocks[0].attn, torch.randn(2, 13, 32)
    reference = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    with torch.no_grad():
        reference.in_proj_weight.copy_(attention.qkv.weight)
        reference.in_proj_bias.copy_(attention.qkv.bias)
        reference.out_proj.load_state_dict(attention.proj.state_dict())
    torch.testing.assert_close(attention(tokens), reference(tokens, tokens, tokens)[0])


def test_pooling():
    tokens = torch.randn(2, 13, 32)
    torch.testing.assert_close(make(pooling="class").pool(tokens), tokens[:, 0])
    torch.testing.assert_close(make(pooling="mean").pool(tokens), tokens[:, 1:].mean(1))


def test_sincos_positions_are_fixed_and_tell_every_place_apart():
    model = make(position_embedding="sincos")
    assert "pos_embed" not in dict(model.named_parameters())
    positions = sincos_positions((4, 3), 32)
    assert positions.shape == (1, 13, 32)
    assert positions[0, 0].abs().max() == 0
    assert torch.pdist(positions[0, 1:]).min() > 0.1
    # Places one apart have the same inner product wherever they are: that is what the waves are for.
    plane = positions[0, 1:].reshape(4, 3, 32)
    products = (plane[:, :-1] * plane[:, 1:]).sum(-1)
    torch.testing.assert_close(products, products[0, 0].expand_as(products))


def test_positions_interpolate_to_another_grid():
    positions = torch.randn(1, 1 + 16, 8)
    larger = interpolate_positions(positions, (4, 4), (6, 5))
    assert larger.shape == (1, 31, 8)
    torch.testing.assert_close(larger[:, :1], positions[:, :1])
    assert interpolate_positions(positions, (4, 4), (4, 4)) is positions
    constant = torch.full((1, 17, 8), 3.0)
    torch.testing.assert_close(interpolate_positions(constant, (4, 4), (7, 3)), torch.full((1, 22, 8), 3.0))


def test_presets_build():
    model = VisionTransformer(PRESETS["vit-micro"])
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_193_482


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_224"])
def test_logits_equal_timms(timm, name):
    reference = timm.create_model(name, pretrained=False).eval()
    model = VisionTransformer(PRESETS["vit-tiny" if "tiny" in name else "vit-small"]).eval()
    model.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), reference(images), atol=1e-5, rtol=1e-5)


def test_interpolated_positions_equal_timms(timm):
    from timm.layers import resample_abs_pos_embed

    positions = torch.randn(1, 1 + 16, 8)
    expected = resample_abs_pos_embed(positions, (6, 5), (4, 4), num_prefix_tokens=1)
    torch.testing.assert_close(interpolate_positions(positions, (4, 4), (6, 5)), expected)


def test_a_model_without_values_has_positions_of_the_same_shape():
    spec = PRESETS["vit-micro"]
    with torch.device("meta"):
        empty = VisionTransformer(spec).state_dict()
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in empty.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in VisionTransformer(spec).state_dict().items()
    }
