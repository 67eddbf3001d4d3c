"""How far merging tokens of a block would move them, before any model is run with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST_NORM = 1e-12


def merging_distances(metric: NDArray[np.float32], prefix: int, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how far tokens are moved by merging from one number of merged tokens on to another, all at once.

    ``metric`` (n, d) is what tokens of one image are compared by; the first ``prefix`` of them are never merged. What
    is returned is (levels, levels): from ``counts[row]`` merged tokens, merged one level after the other, to
    ``counts[column]``; infinity where that is not possible, as less than half of the tokens can be merged at once.

    Two tokens that stand for s and t patches and become one are moved by s t / (s + t) times the square of their
    distance together (Ward, 1963); the distance is of vectors of unit length. They are matched as
    ``graph.token_merging`` does.
    """
    unit = metric / np.maximum(np.linalg.norm(metric, axis=1, keepdims=True), _LEAST_NORM)
    tokens, sizes = unit[prefix:].astype(np.float64), np.ones(len(unit) - prefix)
    table = np.full((len(counts), len(counts)), np.inf)
    for level, merged in enumerate(counts):
        order, moved = _ranked(tokens, sizes)
        reached = np.concatenate([[0.0], np.cumsum(moved[:-1])])  # one of A must stay
        more = counts[level:] - merged
        possible = more < len(reached)
        table[level, level:][possible] = reached[more[possible]]
        tokens, sizes = _merged(tokens, sizes, order, int(more[min(1, len(more) - 1)]))
    return table


def _match(tokens: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the one of B that each of A is most like, and the cosine."""
    a, b = tokens[1::2], tokens[::2]
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    similarity = a @ b.T / np.maximum(norms, _LEAST_NORM)
    return similarity.argmax(axis=1), similarity.max(axis=1, initial=-1.0)


def _ranked(tokens: NDArray[np.float64], sizes: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the tokens of A, the most alike first, and how far merging each moves it and its partner."""
    partner, similarity = _match(tokens)
    order = np.argsort(-similarity, kind="stable")
    chosen = partner[order]
    of_a, of_b = sizes[1::2][order], sizes[::2][chosen]
    apart = ((tokens[1::2][order] - tokens[::2][chosen]) ** 2).sum(axis=1)
    return order, of_a * of_b / (of_a + of_b) * apart


def _merged(
    tokens: NDArray[np.float64], sizes: NDArray[np.float64], order: NDArray[np.int64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what is left of ``tokens`` (n, d) and sizes once the first ``count`` of A in ``order`` are merged."""
    partner, _ = _match(tokens)
    merged, kept = order[:count], np.sort(order[count:])
    of_b = sizes[::2].copy()
    sums = tokens[::2] * of_b[:, None]
    np.add.at(sums, partner[merged], tokens[1::2][merged] * sizes[1::2][merged][:, None])
    np.add.at(of_b, partner[merged], sizes[1::2][merged])
    return np.concatenate([tokens[1::2][kept], sums / of_b[:, None]]), np.concatenate([sizes[1::2][kept], of_b])
