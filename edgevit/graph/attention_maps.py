"""Where a ViT looks: the attention of its last block, and attention rollout, as maps over the patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.errors import GraphError
from edgevit.graph.patterns import attention_around
from edgevit.graph.taps import TappedModel

#: Tokens beside the patches that a ViT may have (class token, distillation token, registers), where nobody says.
_MOST_OTHERS = 9
_FEWEST_PATCHES = 4


@dataclass(frozen=True, slots=True)
class AttentionMaps:
    """Maps (rows, columns) of patches for one image, each at least 0 and of sum 1.

    ``last`` is the last block's attention, the mean over its heads; ``rollout`` that of all blocks (Abnar & Zuidema
    2020), None where not all blocks see all tokens.
    """

    last: NDArray[np.float64]
    rollout: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """How tokens lie: ``others`` that stand for no patch come first, then ``rows`` of ``columns`` patches."""

    others: int
    rows: int
    columns: int

    @property
    def patches(self) -> int:
        """How many tokens are patches."""
        return self.rows * self.columns


class AttentionProbe:
    """A model in onnxruntime that tells its attention; ``from_class_token`` says whether the class token's is read."""

    def __init__(self, model: ir.Model | Path, *, from_class_token: bool = True, grid: TokenGrid | None = None) -> None:
        """Open ``model``, which stays as it is, or is a file; where no ``grid`` is known it is told from the tokens.

        Raises:
            GraphError: if it has no attention whose weights are a value of the graph, such as where they are fused.

        """
        graph = ir.load(model).graph if isinstance(model, Path) else model.graph
        names = [str(node.outputs[0].name) for node in graph if attention_around(node) is not None]
        if not names:
            raise GraphError(
                "there is no attention in the graph whose weights can be read",
                remedy="export the model without fused attention",
            )
        self._names, self._from_class_token, self._grid = names, from_class_token, grid
        self._model = TappedModel(model, names)

    def maps(self, image: NDArray[np.float32]) -> AttentionMaps:
        """Return where the model looks in one image (1, C, H, W).

        Raises:
            GraphError: if its tokens are no grid of patches, such as those of windows.

        """
        found = self._model.run(image)
        weights = [found[name] for name in self._names]
        grid = self._grid or token_grid(weights[-1].shape[-1], image.shape[-2:])
        return attention_maps(weights, grid, from_class_token=self._from_class_token)


def attention_maps(weights: Sequence[NDArray[np.float32]], grid: TokenGrid, *, from_class_token: bool) -> AttentionMaps:
    """Return the maps of one image from each block's ``weights`` (1, heads, M, N) of N tokens that lie as ``grid``.

    M is N, or 1 in the last block, where the other tokens are not looked at. A model without a class token, or one that
    does not read it, has the mean over its patches.

    Raises:
        GraphError: if the weights are of other tokens, such as those of windows.

    """
    last = weights[-1]
    if last.ndim != 4 or last.shape[0] != 1 or last.shape[-1] != grid.others + grid.patches:
        raise GraphError("attention is not over all tokens of an image", remedy="maps are drawn of plain ViTs only")
    row = _reader(last[0].mean(axis=0, dtype=np.float64), grid, from_class_token=from_class_token)
    return AttentionMaps(_as_map(row, grid), _rolled_out(weights, grid, from_class_token=from_class_token))


def token_grid(tokens: int, size: tuple[int, ...]) -> TokenGrid:
    """Return how ``tokens`` lie in an image of ``size`` (height, width): square patches, and as few others as can be.

    Raises:
        GraphError: if they do not.

    """
    height, width = size
    sides = [side for side in range(1, min(height, width) + 1) if height % side == 0 and width % side == 0]
    for side in sides:  # the more patches, the fewer others
        rows, columns = height // side, width // side
        if rows * columns >= _FEWEST_PATCHES and 0 <= tokens - rows * columns <= _MOST_OTHERS:
            return TokenGrid(tokens - rows * columns, rows, columns)
    raise GraphError(
        f"{tokens} tokens are no grid of patches in an image of {height}x{width}",
        remedy="maps are drawn of plain ViTs with square patches only",
    )


def overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return which share of two maps of sum 1 is common to both: 1 less their total variation distance."""
    return float(np.minimum(one, other).sum())


def _rolled_out(
    weights: Sequence[NDArray[np.float32]], grid: TokenGrid, *, from_class_token: bool
) -> NDArray[np.float64] | None:
    """Multiply the blocks' attention, half of each the identity for the residual connection, from the first on."""
    tokens = grid.others + grid.patches
    *others, last = (each[0].mean(axis=0, dtype=np.float64) for each in weights)
    if any(each.shape != (tokens, tokens) for each in others) or last.shape[1] != tokens:
        return None
    rolled = np.eye(tokens)
    for each in others:
        rolled = (each / 2 + np.eye(tokens) / 2) @ rolled
    if len(last) == tokens:
        row = _reader((last / 2 + np.eye(tokens) / 2) @ rolled, grid, from_class_token=from_class_token)
    elif grid.others:  # the class token, which is the only one that is looked at behind the last attention
        row = (last[0] / 2 + np.eye(tokens)[0] / 2) @ rolled
    else:  # a query that pools the tokens, and is none of them
        row = last[0] @ rolled
    return _as_map(row, grid)


def _reader(weights: NDArray[np.float64], grid: TokenGrid, *, from_class_token: bool) -> NDArray[np.float64]:
    """Return the row (N,) of what is read: the class token's, or the mean over the patches'."""
    if len(weights) == 1 or (grid.others and from_class_token):
        return np.asarray(weights[0])
    return np.asarray(weights[grid.others :].mean(axis=0))


def _as_map(row: NDArray[np.float64], grid: TokenGrid) -> NDArray[np.float64]:
    patches = row[grid.others :]
    total = float(patches.sum())
    if not np.isfinite(total) or total <= 0:
        raise GraphError("attention is not finite", remedy="the variant is broken: build it again")
    found: NDArray[np.float64] = (patches / total).reshape(grid.rows, grid.columns)
    return found
