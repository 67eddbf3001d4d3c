"""Derives the spec of a checkpoint from the shapes of its tensors, and the rest from its config or family."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.canonical import placed_tokens
from edgevit.models.config import Config, OpenClip, sides
from edgevit.models.families.base import Converted
from edgevit.models.spec import ModelSpec, Pooling
from edgevit.models.timm_args import heads_by_width

#: Heads of the published widths that do not have 64 features each: ViT-H, SO400M, g and G (Zhai et al. 2022).
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
#: The same of those that pool by attention: SigLIP 2's giant-opt. DINOv2's giant, which is as wide, has 24.
_POOLED_HEADS = {1536: 16}


def spec_of(found: Converted, weights: Mapping[str, Tensor], source: str) -> ModelSpec:
    """Return the architecture that canonical ``weights`` are of.

    Raises:
        CheckpointError: if a tensor that shows a size is missing or has the wrong number of axes.
        SpecError: if the sizes contradict each other.
    """
    fc1 = _shape(weights, "blocks.0.mlp.fc1.weight", 2, source)
    fc2 = _shape(weights, "blocks.0.mlp.fc2.weight", 2, source)
    qkv = _shape(weights, "blocks.0.attn.qkv.weight", 2, source)
    channels, *patch = found.patch or _shape(weights, "patch_embed.proj.weight", 4, source)[1:]
    width, inner = fc2[0], qkv[0] // 3
    norms = {"query_key": "attn.q_norm", "attention": "attn.norm", "mlp": "mlp.norm"}
    gated = fc1[0] == 2 * fc2[1]
    pre_logits, outputs = (
        _shape(weights, name, 2, source)[0] if name in weights else 0
        for name in ("pre_logits.fc.weight", "head.weight")
    )
    projected = "head.weight" in weights and "projection.weight" in found.weights
    return ModelSpec(
        image_size=_image_size(found, weights, (patch[0], patch[1]), source),
        patch_size=(patch[0], patch[1]),
        width=width,
        depth=len({match[1] for name in weights if (match := re.match(r"blocks\.(\d+)\.", name))}),
        heads=heads_in(found, weights),
        classes=0 if projected else outputs,
        channels=channels,
        mlp_ratio=fc2[1] / width,
        pooling=_pooling(found, weights, width),
        position_embedding="learned" if "pos_embed" in weights else "none",
        norm_epsilon=found.norm_epsilon,
        class_token="cls_token" in weights,
        register_tokens=weights["reg_token"].shape[1] if "reg_token" in weights else 0,
        pre_norm="norm_pre.weight" in weights,
        patch_norm="patch_embed.norm_in.weight" in weights,
        attention_width=None if inner == width else inner,
        activation="silu" if gated and not found.gate_known else found.activation,
        gated_mlp=gated,
        rotary=None if found.rotary is None else found.rotary.positions,
        relative_positions="blocks.0.attn.relative.table" in weights,
        **{f"{what}_norm": f"blocks.0.{norm}.weight" in weights for what, norm in norms.items()},
        final_norm=found.final_norm,
        norm_after_pooling="fc_norm.weight" in weights,
        pre_logits=pre_logits,
        projection=outputs if projected else 0,
    )


def heads_in(found: Converted, weights: Mapping[str, Tensor]) -> int:
    """Return the number of heads: what is said, else what a norm of each head's queries shows, else the usual one."""
    if found.heads is not None:
        return found.heads
    inner = weights["blocks.0.attn.qkv.weight"].shape[0] // 3
    if (norm := weights.get("blocks.0.attn.q_norm.weight")) is not None and 0 < norm.numel() <= inner:
        return inner // norm.numel()
    pooled = "attn_pool.query" in weights and inner in _POOLED_HEADS
    return found.assumed_heads or (_POOLED_HEADS[inner] if pooled else heads_of(inner))


def heads_of(width: int) -> int:
    """Return the number of heads of a ViT whose heads have ``width`` features together, as published models have it."""
    return _HEADS.get(width, max(1, width // 64))


def heads_note(found: Converted, spec: ModelSpec) -> tuple[str, ...]:
    """Return the note on a number of heads that neither config nor shapes tell, with the others that it may be."""
    if found.heads is not None or spec.query_key_norm:
        return ()
    if found.assumed_heads:
        return (f"assumed {spec.heads} attention heads of {spec.head_width} features, its library's default: "
                "--heads gives another number",)  # fmt: skip
    others = [heads for heads in heads_by_width().get(spec.width, ()) if heads != spec.heads]
    known = f"; others of that width have {' or '.join(map(str, others))}: --heads {others[-1]}" if others else ""
    return (f"assumed {spec.heads} attention heads, as in published models of width {spec.width}{known}",)


def check_config(config: Config, spec: ModelSpec, source: str) -> None:
    """Compare what a config says with what the weights are.

    Raises:
        CheckpointError: if they contradict each other.
    """
    vision, cfg = config.vision, config.pretrained_cfg
    claims = {
        "hidden_size": (vision.hidden_size, spec.width),
        "num_hidden_layers": (vision.num_hidden_layers, spec.depth),
        "intermediate_size": (None if spec.gated_mlp else vision.intermediate_size, spec.mlp_width),
        "patch_size": (sides(vision.patch_size), spec.patch_size),
        "image_size": (sides(vision.image_size), spec.image_size),
        "num_channels": (vision.num_channels, spec.channels),
        "pretrained_cfg.input_size": (cfg.input_size if cfg else None, (spec.channels, *spec.image_size)),
        "num_classes": (config.num_classes, spec.classes or (spec.projection if config.num_classes else 0)),
        "num_labels": (config.num_labels if spec.classes else None, spec.classes),
    }
    _check_claims("config.json", claims, source)


def check_open_clip(config: OpenClip, spec: ModelSpec, source: str) -> None:
    """Compare what open_clip_config.json says with what the weights are.

    Raises:
        CheckpointError: if they contradict each other.
    """
    vision = config.model_cfg.vision_cfg
    claims: dict[str, tuple[object, object]] = {
        "embed_dim": (config.model_cfg.embed_dim, spec.outputs),
        "image_size": (sides(vision.image_size), spec.image_size),
    }
    if vision.timm_model_name is None:  # else the rest is left at defaults
        claims |= {
            "width": (vision.width, spec.width),
            "layers": (vision.layers, spec.depth),
            "patch_size": (sides(vision.patch_size), spec.patch_size),
        }
    _check_claims("open_clip_config.json", claims, source)


def _check_claims(file: str, claims: Mapping[str, tuple[object, object]], source: str) -> None:
    wrong = [f"{name} is {said}, the weights have {found}" for name, (said, found) in claims.items()
             if said is not None and said != found]  # fmt: skip
    if wrong:
        raise CheckpointError(
            f"{file} contradicts the weights of {source}: {'; '.join(wrong)}",
            remedy=f"put the {file} beside the weights that it was saved with",
        )


def _shape(weights: Mapping[str, Tensor], name: str, axes: int, source: str) -> tuple[int, ...]:
    shape = tuple(weights[name].shape) if name in weights else ()
    if len(shape) != axes or 0 in shape:
        state = f"is {shape}" if name in weights else "is missing"
        raise CheckpointError(
            f"the tensors of {source} do not fit a ViT: {name} {state}, and it should have {axes} axes",
            remedy="check that the checkpoint was saved and copied whole",
        )
    return shape


def _image_size(
    found: Converted, weights: Mapping[str, Tensor], patch: tuple[int, int], source: str
) -> tuple[int, int]:
    if "pos_embed" not in weights and found.image_size is not None:
        return found.image_size
    *_, positions, _ = _shape(weights, "pos_embed", 3, source)
    tokens = {name: weights[name].shape[1] for name in ("cls_token", "reg_token") if name in weights}
    prefix = sum(tokens.values())
    grid = None if found.image_size is None else (found.image_size[0] // patch[0], found.image_size[1] // patch[1])
    if placed_tokens(positions, "cls_token" in tokens, prefix, grid) != prefix:
        wanted = f"grid of {grid[0]}x{grid[1]}" if grid else "square grid"
        raise CheckpointError(
            f"{source} has {positions} positions for {prefix} tokens before the patches, which leaves no {wanted}",
            remedy="give a Hugging Face folder, whose config.json names the image_size"
            if grid is None
            else "correct the image size in the config beside the weights",
        )
    if found.image_size is not None:
        return found.image_size
    side = math.isqrt(positions - prefix)
    return side * patch[0], side * patch[1]


def _pooling(found: Converted, weights: Mapping[str, Tensor], width: int) -> Pooling:
    head = weights.get("pre_logits.fc.weight", weights.get("head.weight"))
    if head is not None and head.ndim == 2 and head.shape[1] == 2 * width and "cls_token" in weights:
        return "class+register" if "dist_token" in found.weights else "class+mean"
    if "attn_pool.query" in weights:
        return "attention"
    if found.pooling is not None:
        return found.pooling
    if "cls_token" not in weights or "fc_norm.weight" in weights:
        return "mean"
    return "class"
