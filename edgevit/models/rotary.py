"""Rotary positions as checkpoints have them, to the one form that ``vit.py`` turns queries and keys by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from edgevit.errors import CheckpointError
from edgevit.models.spec import RotaryPositions


@dataclass(frozen=True, slots=True)
class Rotary:
    """What a family says of its rotary positions.

    ``frequencies`` (2, blocks, heads, d/2), of rows and of columns, are those that the checkpoint has; else they are
    made of ``base`` (timm's temperature). ``first`` is the axis whose frequencies turn the first features of a head.
    ``interleaved``: a pair of features that is turned are neighbours, not half a head apart.
    """

    positions: RotaryPositions
    base: float = 10_000.0
    first: Literal["rows", "columns"] = "rows"
    interleaved: bool = False
    frequencies: Tensor | None = None


def with_rotary(weights: dict[str, Tensor], rotary: Rotary | None, heads: int, source: str) -> dict[str, Tensor]:
    """Return canonical ``weights`` with the frequencies by which queries and keys are turned.

    Where pairs are neighbours, the outputs for queries and keys are put into another order in each head, the same in
    both: their products stay, and pairs lie half a head apart.

    Raises:
        CheckpointError: if heads cannot be turned: they have no fourth of their features.
    """
    if rotary is None:
        return weights
    inner = weights["blocks.0.attn.qkv.weight"].shape[0] // 3
    width, rest = divmod(inner, heads)
    if rest or width % 4:
        raise CheckpointError(
            f"{source} turns queries and keys, and {heads} heads of {inner} features together cannot be turned",
            remedy="give the number of heads that the model was trained with: --heads",
        )
    result = dict(weights)
    result["rotary.frequencies"] = _frequencies(rotary, width) if rotary.frequencies is None else rotary.frequencies
    if rotary.interleaved:
        _part_pairs(result, heads, width)
    return result


def _frequencies(rotary: Rotary, width: int) -> Tensor:  # (2, 1, 1, width / 2)
    """Return powers of the base; of centres in -1..1, whole turns."""
    quarter = width // 4
    bands = rotary.base ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    if rotary.positions.coordinates == "centres":
        bands = 2 * torch.pi * bands
    nothing = torch.zeros_like(bands)
    halves = [torch.cat([bands, nothing]), torch.cat([nothing, bands])]
    ordered = halves if rotary.first == "rows" else halves[::-1]
    return torch.stack(ordered).float()[:, None, None]


def _part_pairs(weights: dict[str, Tensor], heads: int, width: int) -> None:
    """Put the first of each pair of neighbours into a head's first half, the second into the other."""
    order = torch.arange(width).reshape(-1, 2).T.flatten()
    rows = (torch.arange(heads)[:, None] * width + order).flatten()
    for name in weights:
        if re.fullmatch(r"blocks\.\d+\.attn\.qkv\.(weight|bias)", name):
            query, key, value = weights[name].chunk(3)
            weights[name] = torch.cat([query[rows], key[rows], value])
        elif re.fullmatch(r"blocks\.\d+\.attn\.[qk]_norm\.(weight|bias)", name):
            weights[name] = weights[name][order]
