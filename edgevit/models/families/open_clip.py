"""CLIP as OpenAI and OpenCLIP store it: ``visual.`` beside a text tower, or the image tower alone."""

from __future__ import annotations

from edgevit.models.families.base import OPENAI, Converted, Defaults, Family, Raw, left_out, rename

_TOP = r"(?:visual\.)?"
_LAYER = _TOP + r"transformer\.resblocks\.(\d+)\."
_RULES = {
    _TOP + r"class_embedding": "cls_token",
    _TOP + r"positional_embedding": "pos_embed",
    _TOP + r"conv1\.(.*)": r"patch_embed.proj.\1",
    _TOP + r"ln_pre\.(.*)": r"norm_pre.\1",
    _TOP + r"ln_post\.(.*)": r"norm.\1",
    _TOP + r"proj": "projection",
    _LAYER + r"ln_([12])\.(.*)": r"blocks.\1.norm\2.\3",
    _LAYER + r"ls_([12])\.gamma": r"blocks.\1.ls\2.gamma",
    _LAYER + r"attn\.in_proj_(weight|bias)": r"blocks.\1.attn.qkv.\2",
    _LAYER + r"attn\.out_proj\.(.*)": r"blocks.\1.attn.proj.\2",
    _LAYER + r"mlp\.c_fc\.(.*)": r"blocks.\1.mlp.fc1.\2",
    _LAYER + r"mlp\.c_proj\.(.*)": r"blocks.\1.mlp.fc2.\2",
}


def convert(raw: Raw) -> Converted:
    """Give the tensors timm's names."""
    both = any(name.startswith("visual.") for name in raw.weights)
    weights, dropped = rename(raw.weights, _RULES, unused=r"(?!visual\.).*" if both else r"(?!)")
    if "projection" in weights:
        weights["projection.weight"] = weights.pop("projection").T  # (D, E) -> (E, D)
    notes = left_out(dropped, "the text tower")
    if "input_resolution" in raw.weights:  # OpenAI's archives, all of them with QuickGELU
        quick = True
    elif raw.open_clip is not None:
        quick = raw.open_clip.model_cfg.quick_gelu
    else:
        quick = False
        notes += ("assumed GELU; OpenAI's weights have QuickGELU, as open_clip_config.json would say",)
    return Converted(weights, norm_epsilon=1e-5, activation="quick_gelu" if quick else "gelu", notes=notes)


FAMILY = Family(
    "CLIP image tower (OpenAI's or OpenCLIP's names)",
    (
        _TOP + r"conv1\.weight",
        _TOP + r"class_embedding",
        _TOP + r"ln_pre\.weight",
        _LAYER + r"attn\.in_proj_weight",
    ),
    convert,
    Defaults(OPENAI, 1),
)
