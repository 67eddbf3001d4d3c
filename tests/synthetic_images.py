"""Images without a photo: colours, edges and noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pictures(size: Sequence[int], count: int, *, seed: int) -> list[NDArray[np.uint8]]:
    """Return images of smooth colours and edges, so that patches differ and neighbours are alike."""
    channels, height, width = size
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = random.integers(0, 256, size=(4, 4, channels)).astype(np.float64)
        rows, columns = np.linspace(0, 3, height), np.linspace(0, 3, width)
        row, column = rows.astype(int).clip(0, 2), columns.astype(int).clip(0, 2)
        down, right = (rows - row)[:, None, None], (columns - column)[None, :, None]
        corner = [coarse[row + i][:, column + j] for i in (0, 1) for j in (0, 1)]
        top, bottom = corner[0] * (1 - right) + corner[1] * right, corner[2] * (1 - right) + corner[3] * right
        image = top * (1 - down) + bottom * down
        image[random.integers(height) :, random.integers(width) :] *= random.uniform(0.2, 1)
        image += random.normal(scale=8, size=image.shape)
        whole = image.clip(0, 255).astype(np.uint8)
        found.append(whole if channels == 3 else whole[..., 0])
    return found
