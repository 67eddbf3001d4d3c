"""A merging model in torch against the graph that the pass ``MergeTokens`` writes, run by onnxruntime."""

import pytest
import torch
from onnx_ir.passes import common

from edgevit.data.preprocess import Preprocess
from edgevit.errors import GraphError, SpecError
from edgevit.graph.linears import open_graph
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.running import run_all_outputs
from edgevit.graph.torch_export import export_onnx
from edgevit.models.spec import ModelSpec, RotaryPositions
from edgevit.models.token_merging import MergedTokens, MergingEmbedder, MergingVisionTransformer
from edgevit.models.vit import VisionTransformer

SIZES = {"image_size": (32, 40), "patch_size": (4, 4), "width": 32, "depth": 4, "heads": 2, "classes": 7}
SCHEDULE = (11, 0, 20, 7)


def model_of(**changes) -> VisionTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = VisionTransformer(ModelSpec(**{**SIZES, **changes}))
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:  # biases and norms that do something
                torch.nn.init.normal_(parameter, 0.5, 0.3)
            elif "attn" in name:  # and attention that prefers some tokens to others
                torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


def images_of(spec, count=5):
    return torch.randn(count, spec.channels, *spec.image_size, generator=torch.Generator().manual_seed(5))


def by_onnxruntime(model, path, images, schedule):
    size = model.spec.image_size
    preprocess = Preprocess(size=size, resize=max(size), mean=(0.5,) * 3, std=(0.5,) * 3)
    labels = tuple(map(str, range(model.spec.classes)))
    export_onnx(model, path, preprocess=preprocess, labels=labels)
    with open_graph(path) as graph:
        common.ShapeInferencePass()(graph)
        MergeTokens(schedule)(graph)
        return torch.from_numpy(run_all_outputs(graph, [images.numpy()])[0])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"register_tokens": 1, "pooling": "class+register"},
        {"register_tokens": 4, "classes": 0, "pooling": "class+mean"},
        {"class_token": False, "pooling": "mean", "norm_after_pooling": True},
        {"class_token": False, "pooling": "attention", "classes": 0},
        {"attention_width": 24, "mlp_norm": True, "attention_norm": True, "gated_mlp": True, "activation": "silu"},
        {"position_embedding": "sincos", "pre_norm": True, "pooling": "max"},
    ],
)
def test_torch_gives_what_the_merged_graph_gives(tmp_path, changes):
    model = model_of(**changes)
    images = images_of(model.spec)
    expected = by_onnxruntime(model, tmp_path / "model.onnx", images, SCHEDULE)
    with torch.no_grad():
        given, plain = MergingVisionTransformer(model, SCHEDULE)(images), model(images)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
    assert (given - plain).abs().max() > 1e-3  # or there would be nothing to compare


def test_without_anything_to_merge_it_is_the_model(tmp_path):
    model = model_of()
    images = images_of(model.spec)
    torch.testing.assert_close(MergingVisionTransformer(model, (0,) * 4)(images), model(images))


def test_a_merged_token_is_the_mean_of_its_patches_and_all_find_it_again():
    random = torch.Generator().manual_seed(0)
    tokens, metric = (torch.randn(3, 14, 6, generator=random) for _ in range(2))
    left, merged = MergedTokens(prefix=2).merge(tokens, metric, 4)
    left, merged = merged.merge(left, torch.randn(3, 10, 6, generator=random), 3)
    assert merged.sizes is not None
    assert merged.places is not None
    assert left.shape == (3, 7, 6)
    assert merged.sizes.sum(dim=1).flatten().tolist() == [14] * 3
    assert torch.equal(left[:, :2], tokens[:, :2])
    whole = merged.restore(left)
    for image in range(3):
        for place in range(7):
            members = merged.places[image] == place
            assert members.sum() == merged.sizes[image, place, 0]
            torch.testing.assert_close(left[image, place], tokens[image, members].mean(dim=0))
            torch.testing.assert_close(whole[image, members], left[image, place].expand(int(members.sum()), -1))


def test_an_embedder_gives_a_row_for_each_token_too():
    model = model_of(classes=0)
    images = images_of(model.spec)
    features, tokens = MergingEmbedder(model, SCHEDULE)(images)
    assert tokens.shape == (5, model.spec.tokens, 32)
    torch.testing.assert_close(features, MergingVisionTransformer(model, SCHEDULE)(images))


def test_gradients_reach_all_weights():
    model = MergingVisionTransformer(model_of().requires_grad_(), SCHEDULE)
    model(images_of(model.spec)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("changes", "schedule", "said"),
    [
        ({"rotary": RotaryPositions(coordinates="centres")}, SCHEDULE, "depends on the positions"),
        ({"relative_positions": True}, SCHEDULE, "depends on the positions"),
        ({"query_key_norm": True}, SCHEDULE, "norm"),
        ({}, (1, 2), "of 2 blocks, the model has 4"),
        ({}, (0, 0, 41, 0), "cannot merge 41 of 81 tokens"),
        ({}, (-1, 0, 0, 0), "cannot merge -1"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_torch_and_by_the_pass(tmp_path, changes, schedule, said):
    model = model_of(**changes)
    with pytest.raises(SpecError, match=said):
        MergingVisionTransformer(model, schedule)
    with pytest.raises(GraphError):
        by_onnxruntime(model, tmp_path / "model.onnx", images_of(model.spec), schedule)
