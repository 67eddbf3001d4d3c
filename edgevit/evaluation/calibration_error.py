"""How far a classifier's confidence is from how often it is right."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.statistics import as_classes

#: As Guo et al. have them.
BINS = 15

_Share = Annotated[float, msgspec.Meta(ge=-1e-6, le=1 + 1e-6)]


class ConfidenceBin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers of like confidence: how many, their mean confidence, and the share of them that is right."""

    count: Annotated[int, msgspec.Meta(ge=1)]
    confidence: _Share
    right: _Share


class CalibrationError(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The expected calibration error ``ece`` in 0..1, and the bins that it was computed from, without empty ones."""

    ece: _Share
    bins: Annotated[tuple[ConfidenceBin, ...], msgspec.Meta(max_length=BINS)]


def calibration_error(
    logits: NDArray[np.float32], labels: NDArray[np.int64], *, independent: bool = False
) -> CalibrationError | None:
    """Return the expected calibration error of logits (N, classes); None where one is not a finite number.

    The confidence of an answer is the probability of the class that is given; it falls into one of ``BINS`` bins of
    equal width, open below and closed above, and the error is the mean over answers of the distance between their
    bin's mean confidence and its share of right answers: Guo et al. 2017, "On Calibration of Modern Neural Networks",
    equation 3.

    ``labels`` (N,) are class indices. With ``independent`` logits, each a yes or no of its own, they are (N, classes)
    of 0 and 1, and each decision is an answer. A single logit decides between label 0 and 1.
    """
    if not np.isfinite(logits).all() or not len(logits):
        return None
    numbers = logits.astype(np.float64)
    if independent and labels.ndim == 2:
        confidence = 1 / (1 + np.exp(-np.abs(numbers))).reshape(-1)
        right = ((numbers > 0) == (labels > 0)).reshape(-1)
    else:
        numbers = as_classes(logits).astype(np.float64)
        shares = np.exp(numbers - numbers.max(axis=1, keepdims=True))
        confidence = 1 / shares.sum(axis=1)  # the largest is exp(0)
        right = numbers.argmax(axis=1) == labels
    return _of_answers(confidence, right)


def _of_answers(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> CalibrationError:
    places = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for place in np.unique(places).tolist():
        chosen = places == place
        found = ConfidenceBin(
            count=int(chosen.sum()), confidence=float(confidence[chosen].mean()), right=float(right[chosen].mean())
        )
        bins.append(found)
        error += found.count / len(right) * abs(found.right - found.confidence)
    return CalibrationError(ece=error, bins=tuple(bins))
