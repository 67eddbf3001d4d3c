"""See which patches of an image end in one token where tokens are merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.graph.matchings import run_merged
from edgevit.graph.passes.infer_shapes import InferShapes
from edgevit.graph.passes.merge_tokens import MergeTokens
from edgevit.graph.token_merging import TokenSets
from edgevit.graph.token_stream import find_token_stream
from edgevit.graph.weights import letting_go


@dataclass(frozen=True, slots=True)
class PatchTokens:
    """Where patches are behind the last block: ``numbers`` (images, patches) of tokens, the patches row by row.

    Patches with the same number are one token. The first ``prefix`` tokens are of no patch.
    """

    prefix: int
    numbers: NDArray[np.int64]


def merged_patches(model: ir.Model, schedule: Sequence[int], images: Sequence[NDArray[np.float32]]) -> PatchTokens:
    """Return where patches are when ``model`` merges ``schedule[i]`` tokens in block i; it stays as it is.

    ``images`` are (1, C, H, W) each.

    Raises:
        GraphError: if its tokens cannot be merged so, or it cannot be run.

    """
    with letting_go(model.clone()) as merged:
        InferShapes()(merged)
        stream = find_token_stream(merged.graph)
        tokens, prefix = stream.tokens, stream.prefix
        MergeTokens(schedule)(merged)
        runs = run_merged(merged, images).numbers
    return PatchTokens(prefix, np.array([_places(tokens, prefix, schedule, found)[prefix:] for found in runs]))


def _places(tokens: int, prefix: int, schedule: Sequence[int], found: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return where each of ``tokens`` is at the end, of one image; ``found`` are partners and order of each step."""
    places = np.arange(tokens)
    steps = [count for count in schedule if count]
    for count, partner, order in zip(steps, found[::2], found[1::2], strict=True):
        sets = TokenSets(tokens, prefix, count)
        places = _places_after(sets, partner.reshape(-1), order.reshape(-1))[places]
        tokens = sets.left
    return places


def _places_after(sets: TokenSets, partner: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each token from before a step is behind it: the prefix, what stays of A, and B."""
    first_b = sets.prefix + sets.kept
    merged, kept = order[: sets.count], order[sets.count :]
    of_a = np.empty(sets.in_a, np.int64)
    of_a[merged] = first_b + partner[merged]
    of_a[kept] = sets.prefix + np.arange(sets.kept)
    places = np.arange(sets.tokens)
    places[sets.first_a :: 2] = of_a
    places[sets.first_b :: 2] = first_b + np.arange(sets.in_b)
    return places
