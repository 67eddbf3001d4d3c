"""What timm builds as an ``Eva``: EVA, EVA-02, DINOv3, ViTs with rotary positions; and DINOv3 under its authors' names.

Their queries and values have biases, their keys none; gates lie beside the values that they gate, or apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.defaults import IMAGENET, OPENAI, Defaults
from edgevit.models.families.base import Converted, Family, Raw, rename, unused_tensors_note
from edgevit.models.rotary import Rotary
from edgevit.models.spec import RotaryPositions
from edgevit.models.timm_args import outside
from edgevit.models.timm_eva_args import UnderstoodEva, understand_eva

_BLOCK = r"(blocks\.\d+)\."
_RULES = {
    _BLOCK + r"gamma_([12])": r"\1.ls\2.gamma",
    _BLOCK + r"attn\.([qkv])_proj\.(.*)": r"\1.attn.\2.\3",
    _BLOCK + r"attn\.([qkv])_bias": r"\1.attn.\2.bias",
    _BLOCK + r"attn\.inner_attn_ln\.(.*)": r"\1.attn.norm.\2",
    _BLOCK + r"mlp\.(?:fc1_g|w1)\.(.*)": r"\1.mlp.gate.\2",
    _BLOCK + r"mlp\.(?:fc1_x|w2)\.(.*)": r"\1.mlp.values.\2",
    _BLOCK + r"mlp\.w3\.(.*)": r"\1.mlp.fc2.\2",
    _BLOCK + r"mlp\.ffn_ln\.(.*)": r"\1.mlp.norm.\2",
    r"storage_tokens": "reg_token",
    r"rope\.freqs": "rope.freqs",
}
_UNUSED = r"mask_token|lm_head\..*|(?!rope\.freqs$).*rope.*|.*\.bias_mask|local_cls_norm\..*"
#: Of EVA-02 and of DINOv3, where no config says it: published models have no other.
_EVA02 = Rotary(RotaryPositions(coordinates="numbers", reference=(16, 16)), interleaved=True)
_DINOV3 = Rotary(RotaryPositions(coordinates="centres"), base=100.0)


def convert(raw: Raw) -> Converted:
    """Give the tensors the names of timm's ViT; what shapes do not show is config.json's, or assumed and said.

    Raises:
        CheckpointError: if config.json says what EdgeViT does not implement, or nothing says how positions are told.
    """
    weights, dropped = rename(raw.weights, _RULES, unused=_UNUSED)
    frequencies = weights.pop("rope.freqs", None)
    weights = with_key_biases(with_gates(weights))
    said = understand_eva(outside(raw.config, raw.said, raw.name), weights, frequencies, raw.name, "eva")
    if frequencies is not None and (said.rotary is None or not said.rotary.positions.own):
        raise _undescribed(raw)
    found = _converted(weights, said)
    if not said.described:
        found = _assumed(found, raw)
    heads = found.heads if frequencies is None else frequencies.shape[2]
    return replace(
        found, heads=heads, notes=(*unused_tensors_note(dropped, "what only its training reads"), *found.notes)
    )


def convert_dinov3(raw: Raw) -> Converted:
    """Give DINOv3, as its authors publish it, the names of timm's ViT; how far angles turn is in the file."""
    weights, dropped = rename(raw.weights, _RULES, unused=_UNUSED)
    periods = raw.weights["rope_embed.periods"].double()
    turns = 2 * math.pi / periods
    nothing = torch.zeros_like(turns)
    frequencies = torch.stack([torch.cat([turns, nothing]), torch.cat([nothing, turns])]).float()[:, None, None]
    for name in [name for name in weights if re.fullmatch(_BLOCK + r"attn\.qkv\.bias", name)]:
        query, key, value = weights[name].chunk(3)
        weights[name] = torch.cat([query, torch.zeros_like(key), value])  # the authors mask the key's
    weights = with_gates(weights)
    qkv = weights["blocks.0.attn.qkv.weight"]
    return Converted(
        weights,
        heads=max(1, qkv.shape[0] // 3 // (4 * periods.numel())),
        norm_epsilon=1e-5,
        activation="silu" if "blocks.0.mlp.gate" in weights else "gelu",
        image_size=(224, 224),
        pooling="class",
        rotary=replace(_DINOV3, frequencies=frequencies),
        notes=(*unused_tensors_note(dropped, "what only its training reads"), _size_note((224, 224))),
    )


def with_gates(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with what gates and what is gated in one linear layer, the gate first."""
    result = dict(weights)
    for name in [name for name in weights if re.fullmatch(_BLOCK + r"mlp\.gate\.(weight|bias)", name)]:
        other = name.replace(".gate.", ".values.")
        if other in result:
            result[name.replace(".gate.", ".fc1.")] = torch.cat([result.pop(name), result.pop(other)])
    return result


def with_key_biases(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with biases of zeros for keys, which queries and values have without them in every block."""
    result = dict(weights)
    if any(re.fullmatch(_BLOCK + r"attn\.k\.bias", name) for name in weights):
        return result
    for name in [name for name in weights if re.fullmatch(_BLOCK + r"attn\.q\.bias", name)]:
        stem = name.removesuffix(".q.bias")
        value = weights.get(f"{stem}.v.bias")
        if value is None or value.shape != weights[name].shape:
            continue
        zeros = torch.zeros_like(value)
        if f"{stem}.qkv.weight" in weights:
            result[f"{stem}.qkv.bias"] = torch.cat([result.pop(name), zeros, result.pop(f"{stem}.v.bias")])
        else:
            result[f"{stem}.k.bias"] = zeros
    return result


def _converted(weights: dict[str, Tensor], said: UnderstoodEva) -> Converted:
    vit = said.vit
    first, second = weights["blocks.0.mlp.fc1.weight"], weights["blocks.0.mlp.fc2.weight"]
    gated = first.shape[0] == 2 * second.shape[1]
    return Converted(
        weights,
        heads=vit.heads,
        norm_epsilon=vit.norm_epsilon or 1e-6,
        activation="silu" if gated else "gelu",
        image_size=vit.image_size,
        pooling=vit.pooling,
        gate_known=gated,
        rotary=said.rotary,
        final_norm=said.final_norm,
        notes=vit.notes,
    )


def _assumed(found: Converted, raw: Raw) -> Converted:
    """Return what models with such tensors are, as far as there is one kind of them; notes say what was assumed.

    Raises:
        CheckpointError: if there are several kinds, or none.
    """
    names, gated = found.weights.keys(), found.gate_known
    settled = "a config.json with the architecture would settle this"
    if "pos_embed" in names:
        kind = "EVA-02, with rotary positions made for a grid of 16x16" if gated else "EVA, without rotary positions"
        note = f"assumed that it is {kind}: {settled}"
        return replace(found, rotary=_EVA02 if gated else None, notes=(*found.notes, note))
    if not {"cls_token", "reg_token"} <= names:
        raise _undescribed(raw)
    size = found.image_size or (224, 224)
    note = f"assumed that it is DINOv3, with the mean of the patches as timm has it: {settled}"
    return replace(
        found,
        rotary=_DINOV3,
        norm_epsilon=1e-5,
        image_size=size,
        pooling=found.pooling or "mean",
        notes=(*found.notes, note, *(() if found.image_size else (_size_note(size),))),
    )


def _size_note(size: tuple[int, int]) -> str:
    return f"assumed images of {size[0]}x{size[1]}, which no tensor shows: --image-size gives another size"


def _undescribed(raw: Raw) -> CheckpointError:
    return CheckpointError(
        f"nothing says how {raw.name} tells where patches are: it has no learned positions that are added",
        remedy="put timm's config.json beside the weights, with the architecture: "
        '{"architecture": "vit_small_patch16_rope_224"}, for example',
    )


_PATCHES = r"patch_embed\.proj\.weight"
#: What has biases for queries and values, none for keys.
EVA = Family(
    "timm EVA or EVA-02",
    (_PATCHES, r"blocks\.0\.attn\.(q_bias|q_proj\.weight)", r"blocks\.0\.norm1\.weight"),
    convert,
    Defaults(OPENAI, 1 / 0.9),
)
#: What timm's ViT shares all names with but the learned positions, which are not there.
ROTARY = Family(
    "timm DINOv3 or ViT with rotary positions",
    (_PATCHES, r"blocks\.0\.attn\.qkv\.weight", r"blocks\.0\.gamma_1"),
    convert,
    Defaults(IMAGENET, 1),
)
DINOV3 = Family(
    "DINOv3 (its authors' names)",
    (_PATCHES, r"storage_tokens", r"rope_embed\.periods", r"blocks\.0\.attn\.qkv\.weight"),
    convert_dinov3,
    Defaults(IMAGENET, 1),
)
