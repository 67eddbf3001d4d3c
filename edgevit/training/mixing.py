"""Mixup and CutMix: two images in one, with their labels in the same shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgevit.training.batch_plan import MicroBatch, Purpose
from edgevit.training.recipe import TrainRecipe


@dataclass(frozen=True, slots=True)
class Mixing:
    """Mixes the images of a micro-batch in pairs, neighbour with neighbour; the order of a batch is random anyway.

    Each pair draws its own share from Beta(alpha, alpha), for mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019); if
    both are on, a coin decides.
    """

    recipe: TrainRecipe

    def __call__(self, pixels: Tensor, targets: Tensor, micro_batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return pixels (B, C, H, W) and targets (B, classes), mixed; an image without a neighbour stays as it is."""
        if not self.recipe.mixes:
            return pixels, targets
        count, height, width = len(pixels), *pixels.shape[-2:]
        weights = self._weights(micro_batch, height, width).to(pixels.device, pixels.dtype)  # (B, 1, H, W)
        partner = torch.arange(count, device=pixels.device) ^ 1
        partner = partner.where(partner < count, torch.arange(count, device=pixels.device))
        mixed = pixels * weights + pixels[partner] * (1 - weights)
        share = weights.mean(dim=(1, 2, 3))[:, None].to(targets.dtype)  # (B, 1): what is left of the image itself
        return mixed, targets * share + targets[partner] * (1 - share)

    def _weights(self, micro_batch: MicroBatch, height: int, width: int) -> Tensor:
        """Return how much of each pixel stays (B, 1, H, W): the same everywhere for mixup, 0 or 1 for CutMix."""
        random = micro_batch.random(self.recipe, Purpose.MIX)
        pairs = (len(micro_batch.batch) + 1) // 2
        cut = random.random(pairs) < _chance_of_cutmix(self.recipe)
        alphas = np.where(cut, self.recipe.cutmix or 1.0, self.recipe.mixup or 1.0)
        share = random.beta(alphas, alphas)
        across, down = random.random((2, pairs))
        high, wide = np.sqrt(1 - share) * height, np.sqrt(1 - share) * width
        rows = _inside(down * height, high, height)  # (pairs, H)
        columns = _inside(across * width, wide, width)  # (pairs, W)
        boxes = 1.0 - (rows[:, :, None] & columns[:, None, :])
        weights = np.where(cut[:, None, None], boxes, share[:, None, None])
        of_images = np.repeat(weights, 2, axis=0)[micro_batch.places]
        return torch.from_numpy(of_images[:, None])


def _chance_of_cutmix(recipe: TrainRecipe) -> float:
    if recipe.mixup and recipe.cutmix:
        return 0.5
    return 1.0 if recipe.cutmix else 0.0


def _inside(centre: np.ndarray, size: np.ndarray, edge: int) -> np.ndarray:
    places = np.arange(edge) + 0.5
    return np.asarray(np.abs(places - centre[:, None]) < size[:, None] / 2)
