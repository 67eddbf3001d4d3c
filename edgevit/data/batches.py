"""Images as arrays: batch by batch for calibration and validation, or all at once for training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevit.data.dataset import ArrayDataset, Dataset
from edgevit.data.preprocess import Preprocess


def load_pixels(dataset: Dataset, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Return what the model sees of all images before normalisation, uint8 (N, H, W, C)."""
    if isinstance(dataset, ArrayDataset) and dataset.pixels.shape[1:] == (*preprocess.size, preprocess.channels):
        if preprocess.resize in (None, min(preprocess.size)):
            pixels = dataset.pixels
            return pixels[..., ::-1] if preprocess.channel_order == "BGR" else pixels
    pixels = np.empty((len(dataset), *preprocess.size, preprocess.channels), dtype=np.uint8)
    for index in range(len(dataset)):
        pixels[index] = preprocess.geometry(dataset.image(index))
    return pixels
