"""CLIP as OpenAI and OpenCLIP store it: ``visual.`` beside a text tower, or the image tower alone.

OpenCLIP's SigLIP has one of timm's models for its image tower, under ``visual.trunk.``.
"""

from __future__ import annotations

from dataclasses import replace

from edgevit.errors import CheckpointError
from edgevit.models.config import Config, OpenClipVision, sides
from edgevit.models.defaults import HALF, OPENAI, Defaults
from edgevit.models.families import timm, timm_eva
from edgevit.models.families.base import Converted, Family, Raw, rename, unused_tensors_note

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
    """Give the tensors timm's names.

    Raises:
        CheckpointError: if the image tower pools by something else than the class token.
    """
    vision = _vision(raw)
    if vision.pool_type not in (None, "tok"):
        raise CheckpointError(f"{raw.name} pools by '{vision.pool_type}'", remedy="use a model that pools by 'tok'")
    both = any(name.startswith("visual.") for name in raw.weights)
    weights, dropped = rename(raw.weights, _RULES, unused=r"(?!visual\.).*" if both else r"(?!)")
    if "projection" in weights:
        weights["projection.weight"] = weights.pop("projection").T  # (D, E) -> (E, D)
    notes = unused_tensors_note(dropped, "the text tower")
    if "input_resolution" in raw.weights:  # OpenAI's archives, all of them with QuickGELU
        quick = True
    elif raw.open_clip is not None:
        quick = raw.open_clip.model_cfg.quick_gelu
    else:
        quick = False
        notes += ("assumed GELU; OpenAI's weights have QuickGELU; open_clip_config.json would settle this",)
    return Converted(
        weights,
        norm_epsilon=1e-5,
        activation="quick_gelu" if quick else "gelu",
        image_size=sides(vision.image_size),
        notes=notes,
    )


def convert_timm_tower(raw: Raw) -> Converted:
    """Take timm's model out of its wrapping; a linear layer behind it is the projection."""
    vision = _vision(raw)
    rules = {r"visual\.trunk\.(.*)": r"\1", r"visual\.head\.proj\.(.*)": r"projection.\1"}
    weights, dropped = rename(raw.weights, rules, unused=r"(?!visual\.).*")
    described = Config(architecture=vision.timm_model_name, global_pool=vision.timm_pool or None)
    family = next(each for each in (timm_eva.EVA, timm.FAMILY, timm_eva.ROTARY) if each.recognises(list(weights)) == 1)
    converted = family.convert(replace(raw, weights=weights, config=described))
    assumed = ("assumed GELU; some SigLIP models have its tanh form; open_clip_config.json would settle this",)
    return replace(
        converted,
        image_size=sides(vision.image_size),
        notes=(*unused_tensors_note(dropped, "the text tower"), *converted.notes, *(() if raw.open_clip else assumed)),
    )


def _vision(raw: Raw) -> OpenClipVision:
    return raw.open_clip.model_cfg.vision_cfg if raw.open_clip is not None else OpenClipVision()


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
TIMM_TOWER = Family(
    "OpenCLIP image tower of timm's (SigLIP, EVA-02)",
    (r"visual\.trunk\.patch_embed\.proj\.weight", r"visual\.trunk\.blocks\.0\.attn\.(qkv|q_proj)\.weight"),
    convert_timm_tower,
    Defaults(HALF, None),
)
