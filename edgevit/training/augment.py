"""Augmentation of whole batches of pixels (B, H, W, C), uint8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevit.training.recipe import TrainRecipe

PixelArray = NDArray[np.uint8]


def augment(pixels: PixelArray, recipe: TrainRecipe, random: np.random.Generator) -> PixelArray:
    """Return the batch shifted, mirrored and partly erased as ``recipe`` says; ``pixels`` stay as they are."""
    return erase(flip(shift(pixels, recipe.shift, random), recipe.flip, random), recipe.erase, random)


def shift(pixels: PixelArray, most: int, random: np.random.Generator) -> PixelArray:
    """Translate each image by up to ``most`` pixels each way; what comes in is black."""
    count, height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, 0), (most, most), (most, most), (0, 0)))
    top, left = random.integers(0, 2 * most + 1, size=(2, count))
    rows = top[:, None] + np.arange(height)  # (B, H)
    columns = left[:, None] + np.arange(width)  # (B, W)
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def flip(pixels: PixelArray, probability: float, random: np.random.Generator) -> PixelArray:
    """Mirror each image left to right with ``probability``."""
    chosen = random.random((len(pixels), 1, 1, 1)) < probability
    return np.where(chosen, pixels[:, :, ::-1], pixels)


def erase(pixels: PixelArray, probability: float, random: np.random.Generator) -> PixelArray:
    """Fill a rectangle of 2 to 20 % of an image with noise, with ``probability`` (Zhong et al. 2020)."""
    count, height, width, _ = pixels.shape
    chosen = random.random((count, 1, 1)) < probability
    area = random.uniform(0.02, 0.2, count) * height * width
    aspect = np.exp(random.uniform(-1.2, 1.2, count))
    tall = np.clip(np.sqrt(area * aspect), 1, height).astype(int)
    wide = np.clip(np.sqrt(area / aspect), 1, width).astype(int)
    top = random.integers(0, height - tall + 1)
    left = random.integers(0, width - wide + 1)
    row, column = np.arange(height), np.arange(width)
    in_rows = (row >= top[:, None]) & (row < (top + tall)[:, None])  # (B, H)
    in_columns = (column >= left[:, None]) & (column < (left + wide)[:, None])  # (B, W)
    hidden = chosen & in_rows[:, :, None] & in_columns[:, None, :]  # (B, H, W)
    noise = random.integers(0, 256, size=pixels.shape, dtype=np.uint8)
    return np.where(hidden[..., None], noise, pixels)
