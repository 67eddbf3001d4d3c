"""The tokens of a ViT, and models whose tokens cannot be merged: why, and what to do."""

import msgspec
import numpy as np
import pytest
import torch
from external_vits import timm_vit, write_old
from onnx_files import read
from oracles import import_timm
from small_dense import DecodedDetector, Detector, write
from small_hybrid import small_hybrid
from torch import nn
from zoo import randomise

from edgevit.errors import GraphError
from edgevit.graph.external_onnx import write_verified
from edgevit.graph.metadata_overrides import MetadataOverrides, open_onnx
from edgevit.graph.token_stream import find_token_stream
from edgevit.models.spec import ModelSpec, RotaryPositions

SPEC = ModelSpec(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, heads=2, classes=5)
IMAGES = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "tokens", "prefix"),
    [
        ({}, 17, 1),
        ({"pooling": "mean", "class_token": False}, 16, 0),
        ({"register_tokens": 3}, 20, 4),
    ],
)
def test_what_comes_before_the_patches_is_told_from_them(exported_vit, changes, tokens, prefix):
    stream = find_token_stream(read(exported_vit(msgspec.structs.replace(SPEC, **changes))).graph)
    assert (stream.tokens, stream.prefix, stream.patches) == (tokens, prefix, 16)
    assert [block.attention.name for block in stream.blocks] == ["blocks.0.attn", "blocks.1.attn"]
    assert bool(stream.consumers) == (changes.get("pooling") == "mean")  # the class token stays where it is
    assert stream.outputs == []


def refused(graph):
    with pytest.raises(GraphError, match="tokens cannot be merged in this model: ") as error:
        find_token_stream(graph)
    assert "--token-budget" in str(error.value.remedy)
    return str(error.value)


@pytest.mark.parametrize(
    "parts",
    [
        {"rotary": RotaryPositions(coordinates="centres")},  # DINOv3
        {"rotary": RotaryPositions(coordinates="numbers")},  # EVA-02
        {"relative_positions": True},  # BEiT
        {"query_key_norm": True},
    ],
    ids=str,
)
def test_attention_that_looks_at_positions_or_norms_is_refused(exported_vit, parts):
    said = refused(read(exported_vit(msgspec.structs.replace(SPEC, **parts))).graph)
    assert "rotary positions, by a norm in each head, or by a bias" in said


def external(model, folder, **options):
    """Return the graph that a bundle has of ``model``."""
    given, path = folder / "given.onnx", folder / "m.onnx"
    write_old(randomise(model), given, **options)
    write_verified(open_onnx(given, given.name, MetadataOverrides(image_size=(32, 32))), path, IMAGES)
    return read(path).graph


_SMALL = {"pretrained": False, "num_classes": 5, "img_size": 32}
_SWIN = {"window_size": 4, "embed_dim": 32, "depths": (1, 1), "num_heads": (1, 2)}


@pytest.mark.parametrize(
    ("name", "options"),
    [("swin_tiny_patch4_window7_224", _SWIN), ("cait_xxs24_224", {"depth": 2, "patch_size": 8}), ("levit_128s", {})],
    ids=["windows", "class-attention", "convolutions"],
)
def test_families_with_other_attention_are_refused(tmp_path, name, options):
    model = import_timm().create_model(name, **_SMALL, **options)
    assert "each token looks at all others" in refused(external(model, tmp_path))


def test_a_network_without_attention_is_refused(tmp_path):
    graph = read(small_hybrid(tmp_path / "hybrid.onnx")).graph
    assert "each token looks at all others" in refused(graph)


class Changed(nn.Module):
    """timm's model, with something between its blocks, or behind them."""

    def __init__(self, between=None, behind=None):
        super().__init__()
        self.model, self.between, self.behind = timm_vit(), between, behind

    def forward(self, images):
        x = self.model._pos_embed(self.model.patch_embed(images))
        for block in self.model.blocks:
            x = block(x)
            x = x if self.between is None else self.between(x)
        x = x if self.behind is None else self.behind(x)
        return self.model.head(self.model.norm(x)[:, 0])


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x.flip(1),
        lambda x: x + torch.arange(17.0)[:, None],
        lambda x: torch.cat([x[:, :1], x[:, 1:].cumsum(1)], dim=1),
    ],
    ids=["moved", "positions-again", "mixed"],
)
def test_what_else_is_done_to_tokens_between_blocks_is_refused(tmp_path, between):
    said = refused(external(Changed(between), tmp_path))
    assert "other operators than Linear layers and norms change the tokens before /blocks.1/attn" in said


def test_behind_the_last_block_tokens_may_be_moved(tmp_path):
    stream = find_token_stream(external(Changed(behind=lambda x: x + x.flip(1)), tmp_path))
    assert len(stream.consumers) == 2


class PatchesFirst(Changed):
    def forward(self, images):
        x = self.model.patch_embed(images)
        x = torch.cat([x, self.model.cls_token.expand(x.shape[0], -1, -1)], dim=1)
        return self.model.head(self.model.norm(self.model.blocks(x))[:, -1])


def test_a_class_token_behind_the_patches_is_refused(tmp_path):
    assert "its patches are not the last of its tokens" in refused(external(PatchesFirst(), tmp_path))


def detector(model, folder):
    write(model, folder / "given.onnx", "logits", "pred_boxes")
    given = open_onnx(folder / "given.onnx", "given.onnx", MetadataOverrides(image_size=(32, 32)))
    write_verified(given, folder / "m.onnx", IMAGES)
    return read(folder / "m.onnx").graph


def test_queries_of_a_detector_read_all_places(tmp_path):
    stream = find_token_stream(detector(Detector(), tmp_path))
    assert len(stream.blocks) == 2
    assert [node.name.split("/")[1] for node, _ in stream.consumers] == ["read", "read"]  # keys and values


def test_a_decoder_with_attention_among_its_queries_is_refused(tmp_path):
    assert "/decoder/layers.1/self_attn" in refused(detector(DecodedDetector(batch_first=True), tmp_path))
