"""transformers' ViT, DeiT (one head or two), DINOv2 and DINOv2 with registers, which share their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from edgevit.models.defaults import HALF, IMAGENET, Defaults
from edgevit.models.families.base import Converted, Family, Raw, from_hugging_face
from edgevit.models.positions import TIMM

_TOP = r"(?:vit\.|deit\.|ijepa\.|dinov2\.|dinov2_with_registers\.)?"
_LAYER = _TOP + r"(?:encoder\.layer|layers)\.(\d+)\."  # layers: as transformers 5 has it in memory
_RULES = {
    _TOP + r"embeddings\.cls_token": "cls_token",
    _TOP + r"embeddings\.distillation_token": "dist_token",
    _TOP + r"embeddings\.register_tokens": "reg_token",
    _TOP + r"embeddings\.position_embeddings": "pos_embed",
    _TOP + r"embeddings\.patch_embeddings\.projection\.(.*)": r"patch_embed.proj.\1",
    _LAYER + r"(?:layernorm_before|norm1)\.(.*)": r"blocks.\1.norm1.\2",
    _LAYER + r"(?:layernorm_after|norm2)\.(.*)": r"blocks.\1.norm2.\2",
    _LAYER + r"attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.(.*)": r"blocks.\1.attn.\2.\3",
    _LAYER + r"attention\.(?:output\.dense|o_proj)\.(.*)": r"blocks.\1.attn.proj.\2",
    _LAYER + r"(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.(.*)": r"blocks.\1.mlp.fc1.\2",
    _LAYER + r"(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj)\.(.*)": r"blocks.\1.mlp.fc2.\2",
    _LAYER + r"layer_scale([12])\.lambda1": r"blocks.\1.ls\2.gamma",
    _TOP + r"layernorm\.(.*)": r"norm.\1",
    r"(?:cls_)?classifier\.(.*)": r"head.\1",
    r"distillation_classifier\.(.*)": r"head_dist.\1",
}
_UNUSED = {
    "the mask token": _TOP + r"embeddings\.mask_token",
    "the pooler": _TOP + r"pooler\.dense\.(?:weight|bias)",
    "the decoder": r"decoder\..*",
}


def convert(raw: Raw) -> Converted:
    """Give the tensors timm's names; heads, epsilon and activation are config.json's.

    Raises:
        CheckpointError: if config.json names an activation that EdgeViT does not have.
    """
    dino = any("layer_scale1" in name for name in raw.weights)
    converted = from_hugging_face(
        replace(raw, weights=_stacked(raw.weights)),
        _RULES,
        unused="|".join(_UNUSED.values()),
        of=" and ".join(what for what, names in _UNUSED.items() if any(re.fullmatch(names, n) for n in raw.weights)),
        activation="gelu",
        norm_epsilon=1e-6 if dino else 1e-12,
    )
    return replace(converted, resampling=TIMM) if "reg_token" in converted.weights else converted


def _stacked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with both halves of a SwiGLU in one, which transformers 5 has apart in memory."""
    result = dict(weights)
    for name in [name for name in weights if re.fullmatch(_LAYER + r"mlp\.gate_proj\.(weight|bias)", name)]:
        other = name.replace("gate_proj", "up_proj")
        if other in result:
            result[name.replace("gate_proj", "weights_in")] = torch.cat([result.pop(name), result.pop(other)])
    return result


_MARKS = (
    _TOP + r"embeddings\.patch_embeddings\.projection\.weight",
    _TOP + r"embeddings\.position_embeddings",
    _LAYER + r"attention\.(?:attention\.query|q_proj)\.weight",
)
VIT = Family(
    "Hugging Face ViT", (*_MARKS, _LAYER + r"layernorm_before\.weight"), convert, Defaults(HALF, None, "bilinear")
)
DEIT = Family(
    "Hugging Face DeiT",
    (*_MARKS, _LAYER + r"layernorm_before\.weight", _TOP + r"embeddings\.distillation_token"),
    convert,
    Defaults(IMAGENET, 256 / 224),
)
DINOV2 = Family(
    "Hugging Face DINOv2", (*_MARKS, _LAYER + r"layer_scale1\.lambda1"), convert, Defaults(IMAGENET, 256 / 224)
)
