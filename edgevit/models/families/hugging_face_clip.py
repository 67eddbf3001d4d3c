"""transformers' CLIP and SigLIP image towers, alone or beside their text towers."""

from __future__ import annotations

import re
from dataclasses import replace

from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.defaults import HALF, OPENAI, Defaults
from edgevit.models.families.base import Converted, Family, Raw, from_hugging_face, unused_tensors_note
from edgevit.models.spec import Activation

_TOP = r"(?:vision_model\.)?"
_LAYER = _TOP + r"encoder\.layers\.(\d+)\."
_RULES = {
    _TOP + r"embeddings\.class_embedding": "cls_token",
    _TOP + r"embeddings\.patch_embedding\.(.*)": r"patch_embed.proj.\1",
    _TOP + r"embeddings\.position_embedding\.weight": "pos_embed",
    _TOP + r"pre_layrnorm\.(.*)": r"norm_pre.\1",
    _LAYER + r"layer_norm([12])\.(.*)": r"blocks.\1.norm\2.\3",
    _LAYER + r"self_attn\.([qkv])_proj\.(.*)": r"blocks.\1.attn.\2.\3",
    _LAYER + r"self_attn\.out_proj\.(.*)": r"blocks.\1.attn.proj.\2",
    _LAYER + r"mlp\.(.*)": r"blocks.\1.mlp.\2",
    _TOP + r"post_layernorm\.(.*)": r"norm.\1",
    r"visual_projection\.weight": "projection.weight",
    _TOP + r"head\.probe": "attn_pool.latent",
    _TOP + r"head\.attention\.in_proj_(weight|bias)": r"attn_pool.in_proj.\1",
    _TOP + r"head\.attention\.out_proj\.(.*)": r"attn_pool.proj.\1",
    _TOP + r"head\.layernorm\.(.*)": r"attn_pool.norm.\1",
    _TOP + r"head\.mlp\.(.*)": r"attn_pool.mlp.\1",
    r"classifier\.(weight|bias)": r"head.\1",
}
_UNUSED = r"text_model\..*|text_projection\..*|logit_scale|logit_bias|(.*\.)?position_ids"


def convert_clip(raw: Raw) -> Converted:
    """Give the tensors timm's names.

    A classifier of transformers' reads the mean of patches that no norm has seen.

    Raises:
        CheckpointError: if config.json names an activation that EdgeViT does not have, or nothing says what a
            classifier reads.
    """
    converted = _convert(raw, "quick_gelu", 1e-5)
    if "classifier.weight" not in raw.weights:
        return converted
    if not any(re.fullmatch(r"\w+ForImageClassification", name) for name in raw.config.architectures or ()):
        raise CheckpointError(
            f"{raw.name} has a classifier on CLIP, and no config.json says whether it reads the mean of the patches, "
            "as transformers' CLIPForImageClassification does, or something else",
            remedy="put the config.json beside the weights that it was saved with; if your own classifier reads the "
            "class token behind the norm, rename its tensors to head.weight and head.bias",
        )
    kept = {name: tensor for name, tensor in converted.weights.items() if not name.startswith(("norm.", "projection"))}
    note = "its classifier reads the mean of the patches before the last norm, as CLIPForImageClassification's does"
    unused = unused_tensors_note(len(converted.weights) - len(kept), "the last norm")
    return replace(converted, weights=kept, pooling="mean", final_norm=False, notes=(*converted.notes, *unused, note))


def convert_siglip(raw: Raw) -> Converted:
    """Give the tensors timm's names; the attention pool's query, keys and values part.

    Raises:
        CheckpointError: if config.json names an activation that EdgeViT does not have.
    """
    converted = _convert(raw, "gelu_tanh", 1e-6)
    if "classifier.weight" not in raw.weights:
        return converted
    kept = {name: tensor for name, tensor in converted.weights.items() if not name.startswith("attn_pool.")}
    note = "its classifier reads the mean of the patches, as SiglipForImageClassification's does"
    unused = unused_tensors_note(len(converted.weights) - len(kept), "the attention pool")
    return replace(converted, weights=kept, pooling="mean", notes=(*converted.notes, *unused, note))


def _convert(raw: Raw, activation: Activation, epsilon: float) -> Converted:
    converted = from_hugging_face(
        raw, _RULES, unused=_UNUSED, of="the text tower", activation=activation, norm_epsilon=epsilon
    )
    return replace(converted, weights=_part_query(converted.weights))


def _part_query(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Part the stacked projections (3D, D) of the attention pool into the query's and the others'."""
    for kind in ("weight", "bias"):
        stacked = weights.pop(f"attn_pool.in_proj.{kind}", None)
        if stacked is not None:
            width = stacked.shape[0] // 3
            weights[f"attn_pool.q.{kind}"], weights[f"attn_pool.kv.{kind}"] = stacked[:width], stacked[width:]
    return weights


_MARKS = (_TOP + r"embeddings\.patch_embedding\.weight", _LAYER + r"self_attn\.q_proj\.weight")
CLIP = Family(
    "Hugging Face CLIP image tower",
    (*_MARKS, _TOP + r"embeddings\.class_embedding", _TOP + r"pre_layrnorm\.weight"),
    convert_clip,
    Defaults(OPENAI, 1),
)
SIGLIP = Family(
    "Hugging Face SigLIP image tower", (*_MARKS, _TOP + r"head\.probe"), convert_siglip, Defaults(HALF, None)
)
