"""lucidrains' vit-pytorch: ``ViT``, with the norms around the patch projection that its newer versions have."""

from __future__ import annotations

import math

from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.families.base import Converted, Family, Raw, rename

_LAYER = r"transformer\.layers\.(\d+)\."
_RULES = {
    r"pos_embedding": "pos_embed",
    r"to_patch_embedding\.1\.(.*)": r"patch_embed.norm_in.\1",
    r"to_patch_embedding\.2\.(.*)": r"patch_embed.proj.\1",
    r"to_patch_embedding\.3\.(.*)": r"patch_embed.norm_out.\1",
    _LAYER + r"0\.norm\.(.*)": r"blocks.\1.norm1.\2",
    _LAYER + r"0\.(?:fn\.)?to_qkv\.weight": r"blocks.\1.attn.qkv.weight",
    _LAYER + r"0\.(?:fn\.)?to_out\.0\.(.*)": r"blocks.\1.attn.proj.\2",
    _LAYER + r"1\.norm\.(.*)": r"blocks.\1.norm2.\2",
    _LAYER + r"1\.fn\.net\.0\.(.*)": r"blocks.\1.mlp.fc1.\2",
    _LAYER + r"1\.fn\.net\.3\.(.*)": r"blocks.\1.mlp.fc2.\2",
    _LAYER + r"1\.net\.0\.(.*)": r"blocks.\1.norm2.\2",
    _LAYER + r"1\.net\.1\.(.*)": r"blocks.\1.mlp.fc1.\2",
    _LAYER + r"1\.net\.4\.(.*)": r"blocks.\1.mlp.fc2.\2",
    r"transformer\.norm\.(.*)": r"norm.\1",
    r"mlp_head\.0\.(.*)": r"norm.\1",
    r"mlp_head\.(?:1\.)?(weight|bias)": r"head.\1",
}


def convert(raw: Raw) -> Converted:
    """Give the tensors timm's names, and patches timm's order of values: channels first.

    Raises:
        CheckpointError: if the size of a patch cannot be told from the number of its values.
    """
    weights, _ = rename(raw.weights, _RULES)
    if weights.get("cls_token") is not None and weights["cls_token"].numel() == 0:
        del weights["cls_token"]  # how the newer versions write mean pooling
    inner = next((tensor.shape[0] // 3 for name, tensor in weights.items() if name.endswith("attn.qkv.weight")), 0)
    channels, side = _patch(weights["patch_embed.norm_in.weight"].numel(), raw.name)
    for name in ("norm_in.weight", "norm_in.bias", "proj.weight"):
        weights[f"patch_embed.{name}"] = _channels_first(weights[f"patch_embed.{name}"], channels, side)
    return Converted(
        weights,
        assumed_heads=max(1, inner // 64),
        norm_epsilon=1e-5,
        patch=(channels, side, side),
    )


def _patch(values: int, name: str) -> tuple[int, int]:
    """Return channels and side of a square patch of so many values."""
    for channels in (3, 1, 4):
        side = math.isqrt(values // channels)
        if channels * side * side == values:
            return channels, side
    raise CheckpointError(
        f"a patch of {name} has {values} values, which is no square in 1, 3 or 4 channels",
        remedy="use a model with square patches",
    )


def _channels_first(values: Tensor, channels: int, side: int) -> Tensor:  # (..., p*p*C) -> (..., C*p*p)
    return values.reshape(*values.shape[:-1], side, side, channels).movedim(-1, -3).flatten(-3)


FAMILY = Family(
    "vit-pytorch ViT (lucidrains)",
    (
        r"to_patch_embedding\.2\.weight",
        r"to_patch_embedding\.1\.weight",
        r"pos_embedding",
        _LAYER + r"0\.(fn\.)?to_qkv\.weight",
    ),
    convert,
    Defaults(IMAGENET, 256 / 224),
)
