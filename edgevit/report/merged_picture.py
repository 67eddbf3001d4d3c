"""A picture with the patches that ended in one token drawn as one (as in ToMe, Bolya et al. 2023, figure 4)."""

from __future__ import annotations

import colorsys
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevit.report.heatmap import SIDE, as_rgb

_LEAST_STEP = 4  # pixels of a patch's side: less shows no border
_HUE_STEP = 0.618  # of the colour circle, from one token to the next: neighbours in number are far apart in colour
_LIGHT, _FULL = 0.62, 0.85
_PALETTE = 128  # colours


def merged_picture(pixels: NDArray[np.uint8], tokens: NDArray[np.int64]) -> bytes:
    """Return a picture (H, W, 1 or 3) as a PNG, with what became of its patches; ``tokens`` (rows, columns) number it.

    Patches that share a token have the mean of their colours and a border in the token's own colour, wherever they lie.
    A patch that is a token by itself is as in the picture.
    """
    step = max(_LEAST_STEP, round(SIDE / max(tokens.shape)))
    token = np.repeat(np.repeat(tokens, step, axis=0), step, axis=1)
    picture = np.asarray(as_rgb(pixels, (token.shape[1], token.shape[0])), dtype=np.float64)
    flat = token.reshape(-1)
    counts = np.maximum(1, np.bincount(flat))
    mean = np.stack([np.bincount(flat, picture[..., channel].reshape(-1)) / counts for channel in range(3)], axis=-1)
    several = (counts > step**2)[token]
    drawn = np.where(several[..., None], mean[token], picture)
    border = several & _at_border(token)
    drawn[border] = _colours(len(counts))[token[border]]
    stream = io.BytesIO()
    # Flat patches and sharp borders are a third as large so as in a JPEG.
    Image.fromarray(drawn.round().astype(np.uint8)).quantize(_PALETTE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _at_border(token: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say of each pixel whether one beside it, above or below is of another token, or it is at the edge."""
    around = np.pad(token, 1, constant_values=-1)
    beside = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    found: NDArray[np.bool_] = np.logical_or.reduce([each != token for each in beside])
    return found


def _colours(count: int) -> NDArray[np.float64]:
    """Return a colour (count, 3) for each token."""
    return 255 * np.array([colorsys.hls_to_rgb(number * _HUE_STEP % 1, _LIGHT, _FULL) for number in range(count)])
