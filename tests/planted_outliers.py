"""Outliers planted in the weights of a ViT, as large ones have them: what INT8 loses most by.

Each takes the weights of a checkpoint by their canonical names and returns others. "norms", "values" and "ignored"
leave the function as it is; "tokens" and "massive" do not, as what they add passes LayerNorm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Weights = dict[str, "Tensor"]

CHANNELS = [3, 11, 27]  # there are as many in any model
TOKENS = [4, 9]


def _depth(weights: Mapping[str, Tensor]) -> int:
    return 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))


def wide_norms(weights: Weights) -> Weights:
    """Widen channels behind LayerNorm 30 times, and narrow what reads them."""
    for block in range(_depth(weights)):
        for norm, reader in (("norm1", "attn.qkv"), ("norm2", "mlp.fc1")):
            for name in ("weight", "bias"):
                weights[f"blocks.{block}.{norm}.{name}"][CHANNELS] *= 30
            weights[f"blocks.{block}.{reader}.weight"][:, CHANNELS] /= 30
    return weights


def wide_values(weights: Weights) -> Weights:
    """Widen channels of the values 50 times, and narrow what reads them."""
    for block in range(_depth(weights)):
        width = len(weights[f"blocks.{block}.attn.proj.weight"])
        rows = [2 * width + channel for channel in CHANNELS]
        for name in ("weight", "bias"):
            weights[f"blocks.{block}.attn.qkv.{name}"][rows] *= 50
        weights[f"blocks.{block}.attn.proj.weight"][:, CHANNELS] /= 50
    return weights


def wide_tokens(weights: Weights) -> Weights:
    """Add 60 to a channel of two tokens."""
    weights["pos_embed"][0, TOKENS, 7] += 60
    return weights


def massive_activations(weights: Weights) -> Weights:
    """Add 300 to two channels of one token, as DINOv2's registers and large ViTs have them (Sun et al., 2024)."""
    for channel, sign in zip(CHANNELS, (1, -1), strict=False):
        weights["pos_embed"][0, TOKENS[0], channel] += sign * 300
    return weights


def ignored_channel(weights: Weights) -> Weights:
    """Give a channel behind the GELU of the second block 30,000, which nothing reads: others have no step left."""
    weights["blocks.1.mlp.fc1.bias"][3] = 3e4
    weights["blocks.1.mlp.fc2.weight"][:, 3] = 0
    return weights


KINDS: dict[str, Callable[[Weights], Weights]] = {
    "norms": wide_norms,
    "values": wide_values,
    "tokens": wide_tokens,
    "massive": massive_activations,
    "ignored": ignored_channel,
}


def plant(weights: Mapping[str, Tensor], kind: str) -> Weights:
    """Return a copy of ``weights`` with outliers of that kind."""
    return KINDS[kind]({name: tensor.clone() for name, tensor in weights.items()})


def plant_in(checkpoint: str, kind: str, folder: Path) -> Path:
    """Write ``checkpoint`` with outliers of that kind into ``folder``, and return where it is."""
    from edgevit.models.loading import load_checkpoint

    whole, path = load_checkpoint(checkpoint), folder / f"{kind}.safetensors"
    replace(whole, weights=plant(whole.weights, kind)).save(path)
    return path
