"""Learned positions at another size than they were trained for, as each library makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Resampling:
    """How a library interpolates positions.

    ``offset`` is added to the number of patches before the scale is computed, as DINOv2's authors do: the values are
    those of a slightly other scale than that of the grids.
    """

    mode: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = False
    align_corners: bool = False
    offset: float = 0.0

    def __str__(self) -> str:
        parts = [self.mode, "antialiased" if self.antialias else "not antialiased"]
        parts += ["corners aligned"] * self.align_corners + [f"offset {self.offset}"] * bool(self.offset)
        return ", ".join(parts)


TIMM = Resampling(antialias=True)  # OpenCLIP's and DINOv2's with registers too
HUGGING_FACE = Resampling()
DINOV2 = Resampling(offset=0.1)
TORCHVISION = Resampling(align_corners=True)
JAX = Resampling("bilinear", align_corners=True)


def interpolate_positions(
    positions: Tensor, source: tuple[int, int], target: tuple[int, int], prefix: int = 1, how: Resampling = TIMM
) -> Tensor:  # (1, prefix + N, D) -> (1, prefix + N', D)
    """Return learned positions for another grid of patches; those of the ``prefix`` tokens stay as they are."""
    if source == target:
        return positions
    first, patches = positions[:, :prefix], positions[:, prefix:]
    plane = patches.transpose(1, 2).reshape(1, -1, *source)  # (1, D, rows, columns)
    align = how.align_corners or None  # torch wants None where antialias is set
    if how.offset:
        scale = [(new + how.offset) / old for new, old in zip(target, source, strict=True)]
        plane = functional.interpolate(plane, scale_factor=scale, mode=how.mode, align_corners=align)
    else:
        plane = functional.interpolate(plane, size=target, mode=how.mode, align_corners=align, antialias=how.antialias)
    return torch.cat([first, plane.flatten(2).transpose(1, 2)], dim=1)
