"""Attention maps: by hand, as timm has them, and refused where tokens are no grid."""

import numpy as np
import pytest
import torch

from edgevit.errors import GraphError
from edgevit.graph.attention_maps import AttentionProbe, TokenGrid, attention_maps, overlap, token_grid
from edgevit.models.spec import ModelSpec

GRID, PATCHES = TokenGrid(1, 4, 4), TokenGrid(0, 4, 4)


def softmax(*shape, seed=0):
    raised = np.exp(np.random.default_rng(seed).normal(size=shape) * 2).astype(np.float32)
    return raised / raised.sum(axis=-1, keepdims=True)


def rollout(weights):
    """Return attention rollout as Abnar & Zuidema write it: A = 0.5 W + 0.5 I, rows of sum 1, the product.

    Written as in their paper's equation 1, without a thought for speed.
    """
    rolled = None
    for block in weights:
        mean = block[0].mean(axis=0)
        with_residual = 0.5 * mean + 0.5 * np.eye(len(mean))
        with_residual /= with_residual.sum(axis=-1, keepdims=True)
        rolled = with_residual if rolled is None else with_residual @ rolled
    return rolled


def test_rollout_is_the_papers():
    weights = [softmax(1, 3, 17, 17, seed=seed) for seed in range(4)]
    found = attention_maps(weights, GRID, from_class_token=True)
    expected = rollout(weights)[0, 1:]
    assert np.allclose(found.rollout.reshape(-1), expected / expected.sum(), atol=1e-6)
    last = weights[-1][0].mean(axis=0)[0, 1:]
    assert np.allclose(found.last.reshape(-1), last / last.sum(), atol=1e-6)
    # Behind the last attention only the class token is looked at, so that engines compute it alone.
    pruned = attention_maps([*weights[:-1], weights[-1][:, :, :1]], GRID, from_class_token=True)
    assert np.allclose(pruned.rollout, found.rollout)
    assert np.allclose(pruned.last, found.last)


def test_without_a_class_token_it_is_the_mean_over_patches():
    weights = [softmax(1, 2, 16, 16, seed=seed) for seed in range(2)]
    found = attention_maps(weights, PATCHES, from_class_token=True)
    assert np.allclose(found.last.reshape(-1), weights[-1][0].mean(axis=(0, 1)), atol=1e-6)
    assert np.allclose(found.rollout.reshape(-1), rollout(weights).mean(axis=0), atol=1e-6)
    unread = attention_maps([softmax(1, 2, 17, 17)], GRID, from_class_token=False)
    assert np.allclose(unread.last.sum(), 1)


def test_a_query_that_pools_the_tokens_adds_none_of_them():
    blocks, pool = [softmax(1, 2, 16, 16)], softmax(1, 2, 1, 16, seed=9)
    found = attention_maps([*blocks, pool], PATCHES, from_class_token=False)
    expected = pool[0].mean(axis=0)[0] @ rollout(blocks)
    assert np.allclose(found.rollout.reshape(-1), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "size", "grid"),
    [(197, (224, 224), (1, 14, 14)), (201, (224, 224), (5, 14, 14)), (256, (224, 224), (0, 16, 16)),
     (65, (32, 128), (1, 4, 16)), (198, (224, 224), (2, 14, 14))],
)  # fmt: skip
def test_tokens_lie_as_patches_do(tokens, size, grid):
    found = token_grid(tokens, size)
    assert (found.others, found.rows, found.columns) == grid


def test_windows_and_numbers_that_are_none_are_refused():
    for tokens in (3, 40, 60, 130):
        with pytest.raises(GraphError, match="no grid of patches"):
            token_grid(tokens, (224, 224))
    with pytest.raises(GraphError, match="not over all tokens"):
        attention_maps([softmax(64, 3, 16, 16)], PATCHES, from_class_token=True)
    with pytest.raises(GraphError, match="not over all tokens"):
        attention_maps([softmax(1, 3, 16, 16)], GRID, from_class_token=True)
    with pytest.raises(GraphError, match="not finite"):
        attention_maps([np.full((1, 1, 17, 17), np.nan, np.float32)], GRID, from_class_token=True)
    shrinking = attention_maps([softmax(1, 1, 65, 65), softmax(1, 1, 17, 17)], GRID, from_class_token=True)
    assert shrinking.rollout is None


def test_maps_overlap_by_what_they_share():
    one, other = np.array([[0.5, 0.5, 0, 0]]), np.array([[0.25, 0.25, 0.5, 0]])
    assert overlap(one, one) == 1
    assert overlap(one, other) == 0.5


def test_a_graph_whose_attention_is_fused_says_so(tmp_path, exported_vit):
    from edgevit.graph.linears import load_graph

    spec = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, heads=2, classes=5)
    path = exported_vit(spec)
    maps = AttentionProbe(path).maps(np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32))
    assert maps.last.shape == (4, 4)
    assert maps.last.sum() == pytest.approx(1)
    model = load_graph(path)
    for node in model.graph:
        if node.op_type == "Softmax":
            node.op_type = "Identity"
            node.attributes.clear()
    with pytest.raises(GraphError, match="no attention"):
        AttentionProbe(model)


@pytest.mark.shared
def test_as_timm_has_them(deit, timm):
    """The weights are read off timm's own attention, by a hook on what its dropout is given."""
    from safetensors.torch import load_file

    model = timm.create_model("deit_tiny_patch16_224", pretrained=False)
    model.load_state_dict(load_file(deit.weights))
    seen = []
    for block in model.eval().blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _module, _inputs, output: seen.append(output.numpy()))
    image = deit.images()[0][:1]
    with torch.inference_mode():
        model(torch.from_numpy(image))
    assert len(seen) == 12
    found = AttentionProbe(deit.float32()).maps(image)
    last = seen[-1][0].mean(axis=0)[0, 1:]
    rolled = rollout([each.astype(np.float64) for each in seen])[0, 1:]
    assert np.abs(found.last.reshape(-1) - last / last.sum()).max() < 1e-5
    assert np.abs(found.rollout.reshape(-1) - rolled / rolled.sum()).max() < 1e-6
