"""Looks at which patches a bundle's variants merge, for its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.manifest import Manifest, TokenMerging
from edgevit.bundle.store import Bundle
from edgevit.errors import GraphError
from edgevit.graph.attention_maps import TokenGrid, token_grid
from edgevit.graph.linears import open_graph
from edgevit.graph.merged_patches import merged_patches
from edgevit.report.insights import MergedSeen
from edgevit.report.merged_picture import merged_picture


def smallest_budget(manifest: Manifest) -> TokenMerging | None:
    """Return how the variants with the smallest token budget merge; None where none merges."""
    found = [each.token_merging for each in manifest.variants if each.token_merging is not None]
    return min(found, key=lambda merging: merging.budget, default=None)


def look_at_merged(
    bundle: Bundle,
    images: NDArray[np.float32],
    pixels: Sequence[NDArray[np.uint8]],
    grid: TokenGrid | None,
    photos: Sequence[str],
    keep: Callable[[str, bytes], str],
) -> MergedSeen | None:
    """Return which patches of ``images`` (N, C, H, W) end in one token by the smallest budget; None where none merges.

    Float32 is run. ``pixels`` (H, W, C) are the same images to be drawn, ``photos`` the names of their pictures, and
    ``keep`` takes the name of a picture and its content. Without ``grid`` it is told from the number of patches.

    Raises:
        GraphError: if the tokens of float32 cannot be merged so, or are no grid of patches.
        BundleError: if it is damaged.

    """
    manifest = bundle.manifest
    merging = smallest_budget(manifest)
    if merging is None:
        return None
    with open_graph(bundle.verify_float32().path) as model:
        found = merged_patches(model, merging.schedule, [image[None] for image in images])
    before = found.prefix + found.numbers.shape[1]
    grid = grid or token_grid(before, images.shape[-2:])
    if (grid.others, grid.patches) != (found.prefix, found.numbers.shape[1]):
        raise GraphError("the tokens are no grid of patches", remedy="merged patches are drawn of plain ViTs only")
    maps = found.numbers.reshape(len(images), grid.rows, grid.columns)
    return MergedSeen(
        budget=merging.budget,
        variants=tuple(each.name for each in manifest.variants if each.token_merging == merging),
        trained=merging.student_sha256 is not None,
        rows=grid.rows,
        columns=grid.columns,
        tokens_before=before,
        tokens_after=before - merging.merged,
        photos=tuple(photos),
        pictures=tuple(
            keep(f"merged-{place}", merged_picture(under, tokens))
            for place, (under, tokens) in enumerate(zip(pixels, maps, strict=True))
        ),
        said=tuple(_in_words(tokens) for tokens in found.numbers),
        tokens=tuple(tuple(tokens.tolist()) for tokens in found.numbers),
    )


def _in_words(tokens: NDArray[np.int64]) -> str:
    """Say how the patches of one image are merged, given the token of each."""
    _, sizes = np.unique(tokens, return_counts=True)
    several = sizes[sizes > 1]
    if not len(several):
        return f"{len(tokens)} patches, none merged"
    return f"{several.sum()} of {len(tokens)} patches in {len(several)} tokens, the largest of {several.max()}"
