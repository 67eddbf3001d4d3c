"""BEiT and BEiT v2, of timm and of transformers, and transformers' data2vec: positions relative to one another."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.defaults import HALF, Defaults
from edgevit.models.families.base import Converted, Family, Raw, from_hugging_face, rename, unused_tensors_note
from edgevit.models.families.timm_eva import with_gates, with_key_biases
from edgevit.models.timm_args import outside
from edgevit.models.timm_eva_args import understand_eva

_TABLE = "relative_position_bias_table"
_BLOCK = r"(blocks\.\d+)\."
_TIMM_RULES = {
    _BLOCK + r"gamma_([12])": r"\1.ls\2.gamma",
    _BLOCK + r"attn\.([qkv])_bias": r"\1.attn.\2.bias",
    _BLOCK + r"mlp\.(?:fc1_g|w1)\.(.*)": r"\1.mlp.gate.\2",
    _BLOCK + r"mlp\.(?:fc1_x|w2)\.(.*)": r"\1.mlp.values.\2",
    _BLOCK + rf"attn\.{_TABLE}": r"\1.attn.relative.table",
    rf"rel_pos_bias\.{_TABLE}": "shared",
}
_TIMM_UNUSED = r".*relative_position_index|mask_token|lm_head\..*"

_TOP = r"(?:beit\.|data2vec_vision\.)?"
_LAYER = _TOP + r"(?:encoder\.layer|layers)\.(\d+)\."
_RULES = {
    _TOP + r"embeddings\.cls_token": "cls_token",
    _TOP + r"embeddings\.position_embeddings": "pos_embed",
    _TOP + r"embeddings\.patch_embeddings\.projection\.(.*)": r"patch_embed.proj.\1",
    _LAYER + r"layernorm_before\.(.*)": r"blocks.\1.norm1.\2",
    _LAYER + r"layernorm_after\.(.*)": r"blocks.\1.norm2.\2",
    _LAYER + rf"(?:attention\.attention\.)?relative_position_bias\.{_TABLE}": r"blocks.\1.attn.relative.table",
    _LAYER + r"attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.(.*)": r"blocks.\1.attn.\2.\3",
    _LAYER + r"attention\.(?:output\.dense|o_proj)\.(.*)": r"blocks.\1.attn.proj.\2",
    _LAYER + r"(?:intermediate\.dense|mlp\.fc1)\.(.*)": r"blocks.\1.mlp.fc1.\2",
    _LAYER + r"(?:output\.dense|mlp\.fc2)\.(.*)": r"blocks.\1.mlp.fc2.\2",
    _LAYER + r"lambda_([12])": r"blocks.\1.ls\2.gamma",
    _TOP + rf"(?:encoder\.relative_position_bias|shared_position_bias)\.{_TABLE}": "shared",
    _TOP + r"layernorm\.(.*)": r"norm.\1",
    _TOP + r"pooler\.layernorm\.(.*)": r"fc_norm.\1",
    r"classifier\.(.*)": r"head.\1",
}
_UNUSED = r".*relative_position_index|(.*\.)?mask_token"


def convert_timm(raw: Raw) -> Converted:
    """Give timm's tensors the names of its ViT.

    Raises:
        CheckpointError: if config.json says what EdgeViT does not implement, or what contradicts the weights.
    """
    weights, dropped = rename(raw.weights, _TIMM_RULES, unused=_TIMM_UNUSED)
    weights = with_key_biases(with_gates(_for_each_block(weights, raw.name)))
    said = understand_eva(outside(raw.config, raw.said, raw.name), weights, None, raw.name, "beit").vit
    first, second = weights["blocks.0.mlp.fc1.weight"], weights["blocks.0.mlp.fc2.weight"]
    gated = first.shape[0] == 2 * second.shape[1]
    cfg = raw.config.pretrained_cfg
    size = said.image_size or (cfg.input_size[1:] if cfg and cfg.input_size else None)
    return Converted(
        weights,
        heads=_heads(weights, said.heads),
        norm_epsilon=said.norm_epsilon or 1e-6,
        activation="silu" if gated else "gelu",
        image_size=_size_of(weights, size, raw.name),
        pooling=said.pooling,
        gate_known=gated,
        notes=(*unused_tensors_note(dropped, "what only its training reads"), *said.notes),
    )


def convert_hugging_face(raw: Raw) -> Converted:
    """Give transformers' tensors timm's names; heads, epsilon and pooling are config.json's.

    Raises:
        CheckpointError: if config.json says what EdgeViT does not implement, or what contradicts the weights.
    """
    found = from_hugging_face(
        raw,
        _RULES,
        unused=_UNUSED,
        of="what only its training reads",
        activation="gelu",
        norm_epsilon=1e-12,
        uses=frozenset({"use_mean_pooling", "use_relative_position_bias", "use_shared_relative_position_bias"}),
    )
    mean = raw.config.vision.use_mean_pooling
    normed = "fc_norm.weight" in found.weights
    if mean is not None and mean != normed:
        raise CheckpointError(
            f"config.json of {raw.name} says use_mean_pooling={mean}, and the weights have "
            f"{'a' if normed else 'no'} norm behind the mean of the patches",
            remedy="put the config.json beside the weights that it was saved with, or save the model with its pooler",
        )
    weights = with_key_biases(_for_each_block(found.weights, raw.name))
    return replace(
        found,
        weights=weights,
        heads=_heads(weights, found.heads),
        image_size=_size_of(weights, found.image_size, raw.name),
        pooling="mean" if normed else "class",
    )


def _for_each_block(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors with a table of distances for each block, to which one that all share is added.

    Raises:
        CheckpointError: if the tables are of several sizes.
    """
    result = dict(weights)
    shared = result.pop("shared", None)
    if shared is None:
        return result
    blocks = {match[0] for name in weights if (match := re.match(r"blocks\.\d+", name))}
    for block in sorted(blocks):
        name = f"{block}.attn.relative.table"
        own = result.get(name)
        if own is not None and own.shape != shared.shape:
            raise CheckpointError(
                f"tables of relative positions in {source} are {tuple(own.shape)} and {tuple(shared.shape)}",
                remedy="check that the checkpoint was saved and copied whole",
            )
        result[name] = shared.clone() if own is None else own + shared
    return result


def _heads(weights: Mapping[str, Tensor], said: int | None) -> int | None:
    table = weights.get("blocks.0.attn.relative.table")
    return said if table is None else table.shape[1]


def _size_of(weights: Mapping[str, Tensor], size: tuple[int, int] | None, source: str) -> tuple[int, int] | None:
    """Return what is said of the images' size, else that of a square one with so many distances between its patches.

    Raises:
        CheckpointError: if there is none.
    """
    if size is not None or "blocks.0.attn.relative.table" not in weights:
        return size
    distances = weights["blocks.0.attn.relative.table"].shape[0] - 3
    side = math.isqrt(max(distances, 0))
    if side * side != distances or not side % 2:
        raise CheckpointError(
            f"{source} has {distances} distances between patches, which leaves no square grid",
            remedy="put a config.json beside the weights that names the image size",
        )
    height, width = weights["patch_embed.proj.weight"].shape[2:]
    return (side + 1) // 2 * height, (side + 1) // 2 * width


TIMM = Family(
    "timm BEiT",
    (r"patch_embed\.proj\.weight", r"blocks\.0\.attn\.qkv\.weight", rf"(blocks\.0\.attn|rel_pos_bias)\.{_TABLE}"),
    convert_timm,
    Defaults(HALF, 1 / 0.9),
)
HUGGING_FACE = Family(
    "Hugging Face BEiT or data2vec",
    (
        _TOP + r"embeddings\.patch_embeddings\.projection\.weight",
        _LAYER + r"attention\.(?:attention\.query|q_proj)\.weight",
        rf"{_LAYER}lambda_1|.*relative_position_bias\.{_TABLE}|.*shared_position_bias\.{_TABLE}",
    ),
    convert_hugging_face,
    Defaults(HALF, 256 / 224),
)
