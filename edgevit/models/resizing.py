"""Takes a checkpoint to another resolution than it was trained at."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from edgevit.errors import SpecError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.positions import interpolate_positions
from edgevit.models.preprocessing import resized
from edgevit.models.vit import sincos_positions


def at_image_size(checkpoint: Checkpoint, size: tuple[int, int]) -> Checkpoint:
    """Return the checkpoint for images of ``size`` (height, width): positions interpolated, preprocessing to match.

    Fixed positions are computed again, learned ones interpolated as the library that the
    weights are of does it.

    Raises:
        SpecError: if patches do not fill such an image.
    """
    old = checkpoint.spec
    if size == old.image_size:
        return checkpoint
    if old.relative_positions:
        raise SpecError(
            f"{checkpoint.source} has positions relative to one another for images of "
            f"{old.image_size[0]}x{old.image_size[1]} alone",
            remedy="leave out --image-size, or give weights that were trained at the size that you want",
        )
    spec = msgspec.structs.replace(old, image_size=size)
    grids = f"from {old.grid[0]}x{old.grid[1]} to {spec.grid[0]}x{spec.grid[1]} patches"
    if spec.position_embedding == "none":
        note = f"positions computed again {grids}"
        return replace(
            checkpoint,
            spec=spec,
            preprocess=resized(checkpoint.preprocess, size),
            notes=(*checkpoint.notes, f"{note}: check the accuracy at this size"),
        )
    if spec.position_embedding == "sincos":
        positions = sincos_positions(spec.grid, spec.width, spec.prefix_tokens)
    else:
        positions = interpolate_positions(
            checkpoint.weights["pos_embed"], old.grid, spec.grid, spec.prefix_tokens, checkpoint.resampling
        )
    note = f"positions interpolated {grids} ({checkpoint.resampling})"
    return replace(
        checkpoint,
        spec=spec,
        weights={**checkpoint.weights, "pos_embed": positions},
        preprocess=resized(checkpoint.preprocess, size),
        notes=(*checkpoint.notes, f"{note}: check the accuracy at this size"),
    )
