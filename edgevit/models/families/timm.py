"""timm's ViT and DeiT in all variants that ``vision_transformer.py`` has, and checkpoints of their authors."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.defaults import IMAGENET, Defaults
from edgevit.models.families import timm_eva
from edgevit.models.families.base import Converted, Family, Raw, rename
from edgevit.models.timm_args import Understood, name_of, outside, table, understand

#: Models with the names of a ViT that compute something else.
_OTHERS = {
    "a ViT with mixed rotary positions": {"rope.freqs"},
    "a Perception Encoder": {"norm_pre.weight", "attn_pool.latent"},
}
#: DeiT III as its authors published it names LayerScale so; timm 1.0 has LayerScale as modules.
_RULES = {r"(blocks\.\d+)\.gamma_([12])": r"\1.ls\2.gamma"}


def convert(raw: Raw) -> Converted:
    """Keep the names; what shapes do not show is config.json's, or assumed and said.

    Raises:
        CheckpointError: if config.json says what EdgeViT does not implement, or what contradicts the weights.
    """
    if name_of(raw.config.architecture) in table().eva:
        return timm_eva.convert(raw)
    weights, _ = rename(raw.weights, _RULES)
    config = outside(raw.config, raw.said, raw.name)
    said, cfg = understand(config, weights, raw.name), config.pretrained_cfg
    activation, assumed = said.activation, said.notes
    if raw.config.architecture is None:
        _check_alone(raw)
        assumed += _assumptions(said, weights, layer_scale="blocks.0.gamma_1" in raw.weights)
    if _is_gated(weights):
        activation, last = said.gate or ("silu", False)
        if said.gate is None:
            assumed += ("assumed a SwiGLU, as DINOv2's giant has it, for its gated MLP",)
        if last:
            _swap_halves(weights)
    if "dist_token" in weights and not weights.keys() & {"head.weight", "head_dist.weight"}:
        both = torch.eye(weights["dist_token"].shape[-1])
        weights["projection.weight"] = torch.cat([both, both], dim=1) / 2  # timm: the mean of both tokens
    return Converted(
        weights,
        heads=said.heads,
        norm_epsilon=said.norm_epsilon or (1e-5 if "norm_pre.weight" in weights else 1e-6),
        activation=activation or "gelu",
        image_size=said.image_size or (cfg.input_size[1:] if cfg and cfg.input_size else None),
        pooling=said.pooling,
        final_norm=said.final_norm,
        gate_known=_is_gated(weights),
        notes=assumed,
    )


def _check_alone(raw: Raw) -> None:
    """Refuse what has the names of a ViT, and is none where no config says so.

    Raises:
        CheckpointError: if it is another model of timm's.
    """
    for kind, names in _OTHERS.items():
        if names <= raw.weights.keys():
            raise CheckpointError(
                f"{raw.name} has tensors as {kind} of timm, and nothing says what it is",
                remedy="put timm's config.json beside the weights, which names the architecture",
            )


def _assumptions(said: Understood, weights: Mapping[str, Tensor], *, layer_scale: bool) -> tuple[str, ...]:
    """Return what is assumed of ``weights``; with ``layer_scale`` as DeiT III has it, which others have, too."""
    clip = "norm_pre.weight" in weights
    things = ["learned positions alone"] if layer_scale else []
    if said.activation is None and clip:
        things.append("GELU (OpenAI's CLIP models have QuickGELU)")
    elif said.activation is None and not _is_gated(weights):
        things.append("GELU")
    if said.norm_epsilon is None:
        things.append(f"LayerNorm with an epsilon of {1e-5 if clip else 1e-6:.0e}".replace("e-0", "e-"))
    if said.pooling is None and "cls_token" in weights and not weights.keys() & {"attn_pool.latent", "dist_token"}:
        things.append("pooling by the " + ("mean" if "fc_norm.weight" in weights else "class token"))
    elif said.pooling is None and "cls_token" not in weights and "attn_pool.latent" not in weights:
        things.append("pooling by the mean")
    return (f"assumed {' and '.join(things)}: a config.json with the architecture would settle this",) if things else ()


def _is_gated(weights: Mapping[str, Tensor]) -> bool:
    first, second = (weights.get(f"blocks.0.mlp.fc{number}.weight") for number in (1, 2))
    if first is None or second is None or second.ndim != 2:
        return False
    return bool(first.shape[0] == 2 * second.shape[1])


def _swap_halves(weights: dict[str, Tensor]) -> None:
    """Put the half that gates first, as ``GatedMlp`` has it."""
    for name in [name for name in weights if re.fullmatch(r"blocks\.\d+\.mlp\.fc1\.(weight|bias)", name)]:
        weights[name] = torch.cat(weights[name].chunk(2)[::-1])


FAMILY = Family(
    "timm ViT or DeiT",
    (r"patch_embed\.proj\.weight", r"pos_embed", r"blocks\.0\.attn\.qkv\.weight", r"blocks\.0\.norm1\.weight"),
    convert,
    Defaults(IMAGENET, 256 / 224),
)
