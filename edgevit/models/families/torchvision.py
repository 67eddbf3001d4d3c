"""torchvision's vit_b_16 and its siblings."""

from __future__ import annotations

from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.families.base import Converted, Family, Raw, rename
from edgevit.models.positions import TORCHVISION

_LAYER = r"encoder\.layers\.encoder_layer_(\d+)\."
_RULES = {
    r"class_token": "cls_token",
    r"encoder\.pos_embedding": "pos_embed",
    r"conv_proj\.(.*)": r"patch_embed.proj.\1",
    _LAYER + r"ln_([12])\.(.*)": r"blocks.\1.norm\2.\3",
    _LAYER + r"self_attention\.in_proj_(weight|bias)": r"blocks.\1.attn.qkv.\2",
    _LAYER + r"self_attention\.out_proj\.(.*)": r"blocks.\1.attn.proj.\2",
    _LAYER + r"mlp\.(?:0|linear_1)\.(.*)": r"blocks.\1.mlp.fc1.\2",
    _LAYER + r"mlp\.(?:3|linear_2)\.(.*)": r"blocks.\1.mlp.fc2.\2",
    r"encoder\.ln\.(.*)": r"norm.\1",
    r"heads\.pre_logits\.(.*)": r"pre_logits.fc.\1",
    r"heads\.head\.(.*)": r"head.\1",
}


def convert(raw: Raw) -> Converted:
    """Give the tensors timm's names."""
    return Converted(rename(raw.weights, _RULES)[0], resampling=TORCHVISION)


FAMILY = Family(
    "torchvision ViT",
    (r"conv_proj\.weight", r"encoder\.pos_embedding", _LAYER + r"self_attention\.in_proj_weight"),
    convert,
    Defaults(IMAGENET, 256 / 224, "bilinear"),
)
