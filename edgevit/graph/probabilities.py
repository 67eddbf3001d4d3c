"""Compare the logits of one model with the probabilities that another makes of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevit.models.spec import OutputActivation

_LEAST = 1e-12  # of a row's largest: what is less likely than that decides nothing
_SMALLEST = 1e-35  # float32 has fewer digits below
_ROUNDING = 1e-5  # of a probability, that the sum of a softmax over many classes may be off by


def logarithms(
    logits: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    activation: OutputActivation,
    *,
    rounding: float = _ROUNDING,
    error: float = 0.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the logarithms of what ``activation`` makes of ``logits`` (N, classes), and of ``probabilities``.

    They differ by as much as the logits behind them, however small the probabilities are. Each of ``probabilities`` may
    be off by ``rounding`` times itself, and ``error``: what they differ by within that is left out.
    """
    values, given = logits.astype(np.float64), probabilities.astype(np.float64)
    if activation == "softmax":
        made = np.exp(values - np.logaddexp.reduce(values, axis=1, keepdims=True))
        return _logarithms(made, given, rounding * given + error)
    found, expected = zip(
        _logarithms(np.exp(-np.logaddexp(0, -values)), given, rounding * given + error),
        _logarithms(np.exp(-np.logaddexp(0, values)), 1 - given, np.full_like(given, rounding + error)),
        strict=True,
    )
    return np.concatenate(found, axis=1), np.concatenate(expected, axis=1)


def _logarithms(
    found: NDArray[np.float64], expected: NDArray[np.float64], off: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the logarithms of ``found`` and ``expected``, which agree where they differ by no more than ``off``."""
    least = np.maximum(_SMALLEST, _LEAST * expected.max(axis=1, keepdims=True))
    one, middle, lowest, highest = (
        np.log(np.maximum(values, least)) for values in (found, expected, expected - off, expected + off)
    )
    return (middle + one - np.clip(one, lowest, highest)).astype(np.float32), middle.astype(np.float32)
