"""Stochastic depth: during training, some images skip some branches of some layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgevit.training.batch_plan import MicroBatch, Purpose
from edgevit.training.recipe import TrainRecipe


class StochasticDepth:
    """Hooks on the attention and the MLP of each block, which drop their outputs image by image (Huang et al. 2016).

    The chance grows from 0 at the first block to the recipe's at the last; what is left is scaled up. The model itself
    knows nothing of it, so nothing of it can reach an export.
    """

    def __init__(self, model: nn.Module, recipe: TrainRecipe) -> None:
        self._recipe = recipe
        self._masks: Tensor | None = None  # (branches, B, 1, 1)
        blocks = list(getattr(model, "blocks", ())) if recipe.stochastic_depth else []
        self._rates = [
            recipe.stochastic_depth * number / max(1, len(blocks) - 1)
            for number in range(len(blocks))
            for _ in range(2)
        ]
        branches = [branch for block in blocks for branch in (block.attn, block.mlp)]
        for number, branch in enumerate(branches):
            branch.register_forward_hook(partial(self._drop, number))

    @contextmanager
    def drawn(self, micro_batch: MicroBatch, device: torch.device) -> Iterator[None]:
        """Drop branches for the images of ``micro_batch`` while the context lasts."""
        if self._rates:
            random = micro_batch.random(self._recipe, Purpose.DEPTH).random((len(self._rates), len(micro_batch.batch)))
            rates = torch.tensor(self._rates, dtype=torch.float64)[:, None]
            kept = (torch.from_numpy(random[:, micro_batch.places]) >= rates) / (1 - rates)
            self._masks = kept.float()[..., None, None].to(device)
        try:
            yield
        finally:
            self._masks = None

    def _drop(self, branch: int, module: nn.Module, _: Any, output: Tensor) -> Tensor:  # noqa: ANN401
        if self._masks is None or not module.training:
            return output
        return output * self._masks[branch].to(output.dtype)
