"""From logits to labels."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.brief import in_brief
from edgevit.errors import InputError, VerificationError

#: A label is decided on above this probability, unless the user says otherwise.
THRESHOLD = 0.5


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One class that an image may belong to; ``probability`` is the softmax over all classes, in 0..1.

    In a model with independent labels (``Model.independent``), ``probability`` is the sigmoid of the label's logit, and
    ``decided`` says whether it is above the threshold. In other models, ``decided`` is None. A model with a single
    logit gives two predictions, yes and no, whose probabilities add up to 1.
    """

    label: str
    index: int
    probability: float
    decided: bool | None = None


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


def predictions(
    logits: NDArray[np.float32],
    labels: Sequence[str],
    *,
    top: int,
    independent: bool = False,
    threshold: float | None = None,
) -> list[list[Prediction]]:
    """Return the ``top`` most likely classes of each row of ``logits`` (B, classes), the likeliest first.

    ``independent`` logits decide by themselves, each for its label where its probability is above ``threshold``. A
    single logit has two labels: of no and yes.

    Raises:
        InputError: if ``top`` is less than 1, the model has no classes, or no threshold like this.
        VerificationError: if a logit is not a finite number.

    """
    if top < 1:
        raise InputError(f"cannot return the top {top} classes", remedy="ask for at least 1")
    if not labels:
        raise InputError("the model has no classes: it gives features", remedy="call its embed() for them")
    _check_threshold(threshold, independent=independent)
    finite_outputs(logits)
    if independent:
        return _decisions(logits, labels, top, THRESHOLD if threshold is None else threshold)
    exponentials = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    # Stable, so that of equals the class with the lower index comes first, as with argmax.
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    return [
        [Prediction(label=labels[index], index=index, probability=float(row[index])) for index in best]
        for row, best in zip(probabilities, order.tolist(), strict=True)
    ]


def _decisions(
    logits: NDArray[np.float32], labels: Sequence[str], top: int, threshold: float
) -> list[list[Prediction]]:
    values = logits.astype(np.float64)
    if values.shape[1] == 1:
        values = np.concatenate([-values, values], axis=1)
    probabilities = np.exp(-np.logaddexp(0, -values))
    decided = probabilities > threshold
    if logits.shape[1] == 1:
        decided[:, 0] = ~decided[:, 1]
    order = np.argsort(-values, axis=1, kind="stable")[:, :top]
    return [
        [
            Prediction(label=labels[index], index=index, probability=float(row[index]), decided=bool(yes[index]))
            for index in best
        ]
        for row, yes, best in zip(probabilities, decided, order.tolist(), strict=True)
    ]


def _check_threshold(threshold: float | None, *, independent: bool) -> None:
    if threshold is None:
        return
    if not independent:
        raise InputError(
            "this model chooses one of its classes, by no threshold",
            remedy="leave it out; a model whose labels are decided one by one is exported with --activation sigmoid",
        )
    threshold_given(threshold)


def threshold_given(value: Any) -> float | None:  # noqa: ANN401
    """Return ``value``, the probability above which a label is decided on; None stays None.

    Raises:
        InputError: if it is none.

    """
    if value is None:
        return None
    given: Any = value  # for mypy, which takes a Real for what has no order
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= given <= 1:
        raise InputError(f"{in_brief(value)} is no threshold of a probability", remedy="give one in 0..1, such as 0.5")
    return float(value)
