"""Groups of parameters: learning rates and weight decay."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from edgevit.training.recipe import TrainRecipe

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_BELOW_THE_BLOCKS = ("patch_embed", "cls_token", "dist_token", "pos_embed", "reg", "norm_pre", "mask_token")


def make_optimizer(model: nn.Module, recipe: TrainRecipe) -> torch.optim.AdamW:
    """Return AdamW on what learns in ``model``; each group has a ``scale`` for its learning rate.

    Biases, norms, tokens and positions do not decay, as in DeiT and timm. A layer's rate is ``layer_decay`` times that
    of the layer above (Clark et al. 2020, Bao et al. 2022).
    """
    learning = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    top = 1 + max((int(found[1]) + 1 for name, _ in learning if (found := _BLOCK.match(name))), default=0)
    groups: dict[tuple[int, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in learning:
        # A parameter of the model itself is a token or the positions.
        plain = parameter.ndim <= 1 or ("." not in name and name != "weight")
        groups[_layer(name, top), 0.0 if plain else recipe.weight_decay].append(parameter)
    settings: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay, "scale": recipe.layer_decay ** (top - layer)}
        for (layer, decay), parameters in groups.items()
    ]
    return torch.optim.AdamW(settings, recipe.learning_rate)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the head to ``rate``, those of the layers below in proportion."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def _layer(name: str, top: int) -> int:
    found = _BLOCK.match(name)
    if found:
        return int(found[1]) + 1
    return 0 if name.startswith(_BELOW_THE_BLOCKS) else top
