"""transformers' DINOv3: positions turn queries and keys, keys have no bias as a rule."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import Tensor

from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.families.base import Converted, Family, Raw, from_hugging_face
from edgevit.models.families.timm_eva import with_gates
from edgevit.models.rotary import Rotary
from edgevit.models.spec import RotaryPositions

_LAYER = r"(?:model\.)?layer\.(\d+)\."
_RULES = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.register_tokens": "reg_token",
    r"embeddings\.patch_embeddings\.(weight|bias)": r"patch_embed.proj.\1",
    _LAYER + r"norm([12])\.(.*)": r"blocks.\1.norm\2.\3",
    _LAYER + r"attention\.([qkv])_proj\.(.*)": r"blocks.\1.attn.\2.\3",
    _LAYER + r"attention\.o_proj\.(.*)": r"blocks.\1.attn.proj.\2",
    _LAYER + r"mlp\.gate_proj\.(.*)": r"blocks.\1.mlp.gate.\2",
    _LAYER + r"mlp\.down_proj\.(.*)": r"blocks.\1.mlp.fc2.\2",
    _LAYER + r"layer_scale([12])\.lambda1": r"blocks.\1.ls\2.gamma",
    r"classifier\.(.*)": r"head.\1",
}
_UNUSED = r"embeddings\.mask_token|rope_embeddings\..*"
#: The linear layers of a block that a config may say have no bias.
_LINEARS = ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.gate", "mlp.values", "mlp.fc1", "mlp.fc2")


def convert(raw: Raw) -> Converted:
    """Give the tensors timm's names; heads, epsilon and how far positions turn are config.json's.

    Raises:
        CheckpointError: if config.json says what EdgeViT does not implement.
    """
    gated = any(re.fullmatch(_LAYER + r"mlp\.gate_proj\.weight", name) for name in raw.weights)
    up = {_LAYER + r"mlp\.up_proj\.(.*)": r"blocks.\1.mlp.values.\2" if gated else r"blocks.\1.mlp.fc1.\2"}
    found = from_hugging_face(
        raw, _RULES | up, unused=_UNUSED, of="the mask token", activation="gelu", norm_epsilon=1e-5, heads=6
    )
    weights = {name: tensor for name, tensor in found.weights.items() if tensor.numel()}  # registers there may be none
    base = raw.config.vision.rope_theta
    size = found.image_size or (224, 224)
    said = () if base is not None or raw.config.model_type else ("assumed that positions turn as with a base of 100",)
    return replace(
        found,
        weights=with_gates(_with_biases(weights)),
        image_size=size,
        gate_known=True,
        rotary=Rotary(RotaryPositions(coordinates="centres"), 100.0 if base is None else base),
        notes=(*found.notes, *said),
    )


def _with_biases(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with biases of zeros for the linear layers that have none in any block."""
    result = dict(weights)
    for linear in _LINEARS:
        if not any(re.fullmatch(rf"blocks\.\d+\.{re.escape(linear)}\.bias", name) for name in weights):
            matrices = [name for name in weights if re.fullmatch(rf"blocks\.\d+\.{re.escape(linear)}\.weight", name)]
            result |= {name.removesuffix("weight") + "bias": torch.zeros(weights[name].shape[0]) for name in matrices}
    return result


FAMILY = Family(
    "Hugging Face DINOv3",
    (r"embeddings\.patch_embeddings\.weight", _LAYER + r"attention\.q_proj\.weight", _LAYER + r"layer_scale1\.lambda1"),
    convert,
    Defaults(IMAGENET, None, "bilinear"),
)
