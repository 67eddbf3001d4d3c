"""From logits to labels."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.errors import InputError, VerificationError


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One class that an image may belong to; ``probability`` is the softmax over all classes, in 0..1."""

    label: str
    index: int
    probability: float


def finite_outputs(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a model's ``outputs`` (B, width), which are known to be numbers then.

    Raises:
        VerificationError: if one is not a finite number.

    """
    if not np.isfinite(outputs).all():
        raise VerificationError(
            "the model answered with values that are not finite numbers", remedy="load the variant 'float32'"
        )
    return outputs


def predictions(logits: NDArray[np.float32], labels: Sequence[str], *, top: int) -> list[list[Prediction]]:
    """Return the ``top`` most likely classes of each row of ``logits`` (B, classes), the likeliest first.

    Raises:
        InputError: if ``top`` is less than 1, or the model has no classes.
        VerificationError: if a logit is not a finite number.

    """
    if top < 1:
        raise InputError(f"cannot return the top {top} classes", remedy="ask for at least 1")
    if not labels:
        raise InputError("the model has no classes: it gives features", remedy="call its embed() for them")
    finite_outputs(logits)
    exponentials = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    # Stable, so that of equals the class with the lower index comes first, as with argmax.
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    return [
        [Prediction(label=labels[index], index=index, probability=float(row[index])) for index in best]
        for row, best in zip(probabilities, order.tolist(), strict=True)
    ]
