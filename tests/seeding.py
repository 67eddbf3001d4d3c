"""Random weights under which a network works as a trained one does: no branch switched off, no layer dying down.

timm begins many BatchNorms and LayerScales at 0, and statistics of BatchNorm that no image went into leave activations
to shrink or grow from layer to layer: outputs are alike then whatever the image is.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_LAYER_SCALE = re.compile(r"(.*\.)?(layer_scale.*|gamma(_?\d)?)")
_AT_ONCE = 16
_NORM = (0.5, 1.5)
#: As much as a LayerScale adds of a branch.
BRANCH = (0.1, 0.5)


def seed_as_trained(model: nn.Module, images: Tensor, *, branches: tuple[float, float] = _NORM) -> nn.Module:
    """Draw the weights of BatchNorm and LayerScale; BatchNorm's statistics are those of ``images`` (N, C, H, W).

    ``branches`` is the range of weights that the library begins at 0, behind which a branch is added to its input.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    with torch.no_grad():
        for parameter, values in model.named_parameters():
            if _LAYER_SCALE.fullmatch(parameter):
                values.uniform_(*BRANCH)
        for norm in norms:
            nn.init.uniform_(norm.weight, *(_NORM if norm.weight.any() else branches))
            nn.init.normal_(norm.bias, 0, 0.2)
            norm.momentum = None  # the mean over all batches
            norm.reset_running_stats()
        if norms:
            model.train()
            for part in images.split(_AT_ONCE):
                model(part)
    return model.eval()
