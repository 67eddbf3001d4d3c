"""How far a model's outputs are from float32's, where it has several, or other ones than a row of logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgevit.models.outputs import Output, parts
from edgevit.statistics import cosines, mean_kl, sqnr_db


def worst_sqnr_db(reference: NDArray[np.float32], rows: NDArray[np.float32], outputs: Sequence[Output]) -> float | None:
    """Return the smallest signal to noise ratio of an output, in dB; None where none has any noise.

    Rows (N, width) hold all ``outputs``; without, they are one output.
    """
    if not outputs:
        return sqnr_db(reference, rows)
    pairs = zip(parts(outputs, reference), parts(outputs, rows), strict=True)
    found = [sqnr_db(one, other) for (_, one), (_, other) in pairs]
    return min((ratio for ratio in found if ratio is not None), default=None)


def has_logits(outputs: Sequence[Output]) -> bool:
    """Return whether one of ``outputs`` is logits, whose divergence ``worst_kl`` tells."""
    return any(output.kind == "logits" for output in outputs)


def worst_kl(reference: NDArray[np.float32], rows: NDArray[np.float32], outputs: Sequence[Output]) -> float:
    """Return the largest mean KL(reference || rows) of the logits among ``outputs``, in nats; 0 where none is logits.

    Logits at several places of an image are taken one by one.
    """
    pairs = zip(parts(outputs, reference), parts(outputs, rows), strict=True)
    logits = [(output, one, other) for (output, one), (_, other) in pairs if output.kind == "logits"]
    found = []
    for output, *both in logits:
        one, other = (each.reshape(-1, output.shape[-1]) for each in both)
        found.append(mean_kl(one, other, independent=output.shape[-1] == 1 or output.independent))
    return max(found, default=0.0)


def worst_cosine(reference: NDArray[np.float32], rows: NDArray[np.float32], outputs: Sequence[Output]) -> float:
    """Return the smallest mean cosine similarity of an output: of tokens one by one, of others as they are."""
    if not outputs:
        return float(cosines(reference, rows).mean())
    pairs = zip(parts(outputs, reference), parts(outputs, rows), strict=True)
    return min(_mean_cosine(output, one, other) for (output, one), (_, other) in pairs)


def _mean_cosine(output: Output, one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    pair = []
    for numbers in (one, other):
        moved = np.moveaxis(numbers, 1, -1) if output.kind == "features" else numbers
        width = moved.shape[-1] if output.kind in ("tokens", "features") else output.size
        pair.append(moved.reshape(-1, width))
    same = (pair[0] == pair[1]).all(axis=1)  # also where both are zero, and have no direction
    return float(np.where(same, 1.0, cosines(pair[0], pair[1])).mean())
