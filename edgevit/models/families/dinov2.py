"""DINOv2 as its authors publish it: timm's names but for registers, SwiGLU, chunks of blocks and linear heads."""

from __future__ import annotations

from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.families.base import Converted, Family, Raw, rename, unused_tensors_note
from edgevit.models.positions import DINOV2, TIMM

_RULES = {
    r"(?:backbone\.)?register_tokens": "reg_token",
    r"(?:backbone\.)?blocks\.(?:\d+\.)?(\d+)\.mlp\.w12\.(.*)": r"blocks.\1.mlp.fc1.\2",
    r"(?:backbone\.)?blocks\.(?:\d+\.)?(\d+)\.mlp\.w3\.(.*)": r"blocks.\1.mlp.fc2.\2",
    r"(?:backbone\.)?blocks\.(?:\d+\.)?(\d+)\.([a-z].*)": r"blocks.\1.\2",
    r"linear_head\.(weight|bias)": r"head.\1",
    r"backbone\.(.*)": r"\1",
}


def convert(raw: Raw) -> Converted:
    """Give registers, gated MLPs and blocks timm's names."""
    weights, dropped = rename(raw.weights, _RULES, unused=r"(backbone\.)?mask_token")
    how = TIMM if "reg_token" in weights else DINOV2
    return Converted(weights, resampling=how, notes=unused_tensors_note(dropped, "the mask token"))


FAMILY = Family(
    "DINOv2 (its authors' names)",
    (r"(backbone\.)?mask_token", r"(backbone\.)?patch_embed\.proj\.weight", r"(backbone\.)?blocks\.0\..*ls1\.gamma"),
    convert,
    Defaults(IMAGENET, 256 / 224),
)
