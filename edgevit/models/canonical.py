"""From tensors under timm's names, in whatever variant, to the one form that ``vit.py`` has.

Each step is exact: query, key and value are stacked; LayerScale is multiplied into the linear layer before it; the
query of an attention pool is projected; a distillation token becomes a register and its head one half of the head;
biases and positions that a family does without become zeros.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]


def canonical(weights: Mapping[str, Tensor], image_grid: tuple[int, int] | None) -> Weights:
    """Return the tensors as ``vit.py`` has them; ``image_grid`` is the grid of patches, None for a square one.

    Tensors that do not belong together are left as they are: the check against the model then names them.
    """
    result = dict(weights)
    for step in (_shape_tokens, _stack_qkv, _fold_layer_scale, _project_query, _merge_distillation, _projection_head):
        step(result)
    _add_biases(result)
    _complete_positions(result, image_grid)
    return {name: tensor.contiguous() for name, tensor in result.items()}


def _shape_tokens(weights: Weights) -> None:
    for name in ("cls_token", "dist_token", "reg_token", "pos_embed", "attn_pool.latent"):
        if name in weights:
            weights[name] = weights[name].reshape(1, -1, weights[name].shape[-1])  # (1, N, D)


def _stack_qkv(weights: Weights) -> None:
    for name in [name for name in weights if re.fullmatch(r"blocks\.\d+\.attn\.q\.weight", name)]:
        attention = name.removesuffix("q.weight")
        matrices = [weights.get(f"{attention}{part}.weight") for part in "qkv"]
        if any(matrix is None or matrix.shape != weights[name].shape for matrix in matrices):
            continue
        for kind in ("weight", "bias"):
            names = [f"{attention}{part}.{kind}" for part in "qkv"]
            if all(part in weights for part in names):
                weights[f"{attention}qkv.{kind}"] = torch.cat([weights.pop(part) for part in names])


def _fold_layer_scale(weights: Weights) -> None:
    for name in [name for name in weights if re.fullmatch(r"blocks\.\d+\.ls[12]\.gamma", name)]:
        block, scale, _ = name.rsplit(".", 2)
        linear = f"{block}.attn.proj" if scale == "ls1" else f"{block}.mlp.fc2"
        matrix, gamma = weights.get(f"{linear}.weight"), weights[name]
        if matrix is None or gamma.shape != matrix.shape[:1]:
            continue
        del weights[name]
        weights[f"{linear}.weight"] = matrix * gamma[:, None]
        if f"{linear}.bias" in weights:
            weights[f"{linear}.bias"] = weights[f"{linear}.bias"] * gamma


def _project_query(weights: Weights) -> None:
    latent, matrix = weights.get("attn_pool.latent"), weights.get("attn_pool.q.weight")
    if latent is None or matrix is None or latent.shape[-1] != matrix.shape[1]:
        return
    del weights["attn_pool.latent"], weights["attn_pool.q.weight"]
    weights["attn_pool.query"] = functional.linear(latent, matrix, weights.pop("attn_pool.q.bias", None))


def _merge_distillation(weights: Weights) -> None:
    """(x W + b + y V + c) / 2 is [x y] times W and V side by side, halved."""
    token = weights.pop("dist_token", None)
    if token is None:
        return
    weights["reg_token"] = token
    pair = [weights.get(f"{head}.weight") for head in ("head", "head_dist")]
    if pair[0] is None or pair[1] is None or pair[0].shape != pair[1].shape:
        return
    weights["head.weight"] = torch.cat([pair[0], pair[1]], dim=1) / 2
    del weights["head_dist.weight"]
    if "head.bias" in weights and "head_dist.bias" in weights:
        weights["head.bias"] = (weights["head.bias"] + weights.pop("head_dist.bias")) / 2


def _projection_head(weights: Weights) -> None:
    if "projection.weight" in weights and "head.weight" not in weights:
        weights["head.weight"] = weights.pop("projection.weight")
        weights["head.bias"] = torch.zeros(weights["head.weight"].shape[0])


def _add_biases(weights: Weights) -> None:
    """Give a bias of zeros to the linear layers that a family has without: one that is lost elsewhere is an error."""
    bare = set()
    if not any(re.fullmatch(r"blocks\.\d+\.attn\.(qkv|q|k|v)\.bias", name) for name in weights):
        bare = {name for name in weights if re.fullmatch(r"blocks\.\d+\.attn\.qkv\.weight", name)}
    if "norm_pre.weight" in weights:  # CLIP
        bare.add("patch_embed.proj.weight")
    for name in bare & weights.keys():
        weights.setdefault(name.removesuffix("weight") + "bias", torch.zeros(weights[name].shape[0]))


def _complete_positions(weights: Weights, image_grid: tuple[int, int] | None) -> None:
    """Add zeros for the tokens that have no position: all before the patches, or those after the class token."""
    positions = weights.get("pos_embed")
    if positions is None:
        return
    tokens = {name: weights[name].shape[1] for name in ("cls_token", "reg_token") if name in weights}
    prefix = sum(tokens.values())
    placed = placed_tokens(positions.shape[1], "cls_token" in tokens, prefix, image_grid)
    if placed is not None and placed < prefix:
        zeros = torch.zeros(1, prefix - placed, positions.shape[2])
        weights["pos_embed"] = torch.cat([positions[:, :placed], zeros, positions[:, placed:]], dim=1)


def placed_tokens(positions: int, class_token: bool, prefix: int, grid: tuple[int, int] | None) -> int | None:  # noqa: FBT001
    """Return how many tokens before the patches have a position; None if the positions fit no such number.

    ``grid`` are the rows and columns of patches, None for as many of each.
    """
    candidates: list[int] = [0, 1, prefix] if class_token else [0, prefix]
    for placed in candidates:
        patches = positions - placed
        rows, columns = grid or (math.isqrt(max(patches, 0)),) * 2
        if patches > 0 and patches == rows * columns:
            return placed
    return None
