"""Positions at another size, compared with what DINOv2's authors' own class makes.

Their package, ``dinov2`` 0.0.1.dev2 on PyPI, asks for an old torch, so that it is not installed with the tests. Its
class runs with the pinned torch all the same. The values below are what ``make_values`` printed with it; where
EDGEVIT_DINOV2 names the folder that ``pip download --no-deps dinov2`` was unpacked to, they are made again.
"""

import os
import sys
from pathlib import Path

import pytest
import torch

from edgevit.models.positions import DINOV2, interpolate_positions

PACKAGE = os.environ.get("EDGEVIT_DINOV2")

#: Rows and columns of the grid -> values at four places of what the class makes of ``positions``.
VALUES = {
    (8, 8): [-0.2641986, -0.5027386, 1.2325711, 0.2715189],
    (3, 7): [0.217225, 0.7338239, -0.2476724, -0.2953049],
    (4, 4): [-0.3415391, -0.3236922, -0.0295966, 0.7836769],
    (10, 2): [-0.7251357, 0.2395741, 0.8235463, 1.5995739],
    (5, 6): [-0.6210422, -0.7715073, -0.3136613, -0.6315753],
}


def positions() -> torch.Tensor:
    """Return positions of a class token and 5 x 5 patches, 8 wide."""
    steps = torch.arange(26 * 8, dtype=torch.float64)
    return torch.sin(steps * 0.7).mul(1.5).float().reshape(1, 26, 8)


def places(made: torch.Tensor) -> list[float]:
    """Return four values of ``made``, spread over it."""
    return [made.flatten()[int(share * (made.numel() - 1))].item() for share in (0.2, 0.45, 0.7, 0.95)]


@pytest.mark.parametrize("grid", VALUES, ids=str)
def test_dinov2s_own_offset(grid):
    ours = interpolate_positions(positions(), (5, 5), grid, how=DINOV2)
    assert places(ours) == pytest.approx(VALUES[grid], abs=1e-6)


@pytest.mark.skipif(PACKAGE is None, reason="EDGEVIT_DINOV2 names no folder with the package dinov2")
@pytest.mark.filterwarnings("ignore")
def test_dinov2s_own_class(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(PACKAGE or "").resolve()))
    assert make_values() == VALUES
    for module in [name for name in sys.modules if name.split(".")[0] == "dinov2"]:
        del sys.modules[module]


def make_values() -> dict[tuple[int, int], list[float]]:
    from dinov2.models.vision_transformer import DinoVisionTransformer

    model = DinoVisionTransformer(
        img_size=70, patch_size=14, embed_dim=8, depth=1, num_heads=2, block_chunks=0, init_values=1.0
    )
    model.pos_embed.data = positions()
    made = {}
    for rows, columns in ((8, 8), (3, 7), (4, 4), (10, 2), (5, 6)):
        tokens = torch.zeros(1, rows * columns + 1, 8)
        own = model.interpolate_pos_encoding(tokens, 14 * rows, 14 * columns)
        torch.testing.assert_close(
            interpolate_positions(positions(), (5, 5), (rows, columns), how=DINOV2), own, rtol=0, atol=0
        )
        made[rows, columns] = [round(value, 7) for value in places(own)]
    return made
