"""How near a variant is to float32 where each logit is a decision of its own: a yes or no, or one of several labels.

A single logit has no top-1, and its softmax is always 1; several labels of an image have no first. So decisions are
compared, and the logits that they are made of, and where labels name the right decision, how many are right.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgevit import statistics
from edgevit.bundle.manifest import Accuracy, Decisions, Truth
from edgevit.errors import DataError
from edgevit.evaluation.accuracy import Rates, check_classes, check_outputs, known_labels, rates_of, rates_of_hits
from edgevit.evaluation.gate import MAX_DROP, decisions_verdict


def measure_decisions(
    reference: NDArray[np.float32],
    logits: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    *,
    data: str,
    data_sha256: str,
    max_drop: float = MAX_DROP,
) -> Accuracy:
    """Compare a variant's logits (N, labels) with float32's for the same images, in the same order.

    ``labels``, 0 or 1, say what a single logit (N,) or each of several (N, labels) should decide; None, or all -1, when
    nothing does. ``data`` and ``data_sha256`` name the images.

    Raises:
        DataError: if the sizes differ, a label is neither 0 nor 1, or there is one label for more than one logit.

    """
    labels = known_labels(labels)
    truth = None
    if labels is not None and labels.ndim == 2:
        truth, labels = _truth(labels, logits), None
    check_outputs(reference, logits, labels)
    if labels is not None and logits.shape[1] > 1:
        raise DataError(
            "one label for each image does not say what is right where an image may have several",
            remedy="give images without labels, or a CSV with a column of 0 and 1 for each of the model's labels",
        )
    check_classes(labels, 2)
    finite = bool(np.isfinite(reference).all() and np.isfinite(logits).all())
    found = _decisions(reference, logits, truth, finite=finite)
    if truth is None:
        rates, delta_f1 = rates_of(reference, logits, labels), None
    else:
        rates, delta_f1 = _rates(reference, logits, truth), _gain_of_f1(reference, logits, truth)
    agreement = statistics.agreement(reference, logits, independent=True)
    lost = 1 - agreement if logits.shape[1] == 1 or found.f1 is None else 1 - found.f1
    sqnr = statistics.sqnr_db(reference, logits) if finite else None
    verdict = decisions_verdict(
        delta=rates.delta_top1,
        delta_f1=delta_f1,
        lost=lost,
        alike=found.yes in (0, 1),
        distance_db=(math.inf if found.max_distance == 0 else -math.inf) if sqnr is None else sqnr,
        finite=finite,
        max_drop=max_drop,
    )
    return Accuracy(
        data=data,
        data_sha256=data_sha256,
        images=len(logits),
        **rates._asdict(),
        agreement=agreement,
        kl=statistics.mean_kl(reference, logits, independent=True) if finite else None,
        sqnr_db=sqnr,
        max_drop=max_drop,
        passed=verdict.passed,
        reason=verdict.reason,
        decisions=found,
    )


def _decisions(
    reference: NDArray[np.float32], logits: NDArray[np.float32], truth: NDArray[np.bool_] | None, *, finite: bool
) -> Decisions:
    distances = np.abs(reference.astype(np.float64) - logits) if finite else None
    right = None
    if truth is not None:
        right = Truth(
            right=float(((logits > 0) == truth)[statistics.finite_rows(logits)].sum() / truth.size),
            f1=statistics.decisions_f1(_as_logits(truth), logits),
            mean_ap=statistics.mean_average_precision(logits, truth) if np.isfinite(logits).all() else None,
        )
    return Decisions(
        yes=float((reference > 0).mean()),
        f1=statistics.decisions_f1(reference, logits),
        mean_distance=None if distances is None else float(distances.mean()),
        max_distance=None if distances is None else float(distances.max()),
        truth=right,
    )


def _truth(labels: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which labels (N, labels) are right."""
    if labels.shape != logits.shape or not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"labels of shape {labels.shape} do not say 0 or 1 for each of {logits.shape[1]} labels of {len(logits)} "
            "images",
            remedy="give a 0 or a 1 for each of the model's labels, for each image",
        )
    return np.asarray(labels == 1, dtype=np.bool_)


def _rates(reference: NDArray[np.float32], logits: NDArray[np.float32], truth: NDArray[np.bool_]) -> Rates:
    """Return how many images are right in all of their labels."""
    before, after = (((one > 0) == truth).all(axis=1) & statistics.finite_rows(one) for one in (reference, logits))
    return rates_of_hits(before, after)


def _gain_of_f1(reference: NDArray[np.float32], logits: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    before, after = (statistics.decisions_f1(_as_logits(truth), one) for one in (reference, logits))
    return (after or 0) - (before or 0)


def _as_logits(truth: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(truth, np.float32(1), np.float32(-1))
