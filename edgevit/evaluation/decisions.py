"""How near a variant is to float32 where each logit is a decision of its own: a yes or no, or one of several labels.

A single logit has no top-1, and its softmax is always 1; several labels of an image have no first. So decisions are
compared, and the logits that they are made of, and where labels name the right decision, how many are right.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgevit import statistics
from edgevit.bundle.manifest import Accuracy, Decisions
from edgevit.errors import DataError
from edgevit.evaluation.accuracy import check_classes, check_outputs, known_labels, rates_of
from edgevit.evaluation.gate import MAX_DROP, judge_decisions


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

    ``labels`` (N,), 0 or 1, say what a single logit should decide; None, or all -1, when nothing does. ``data`` and
    ``data_sha256`` name the images.

    Raises:
        DataError: if the sizes differ, a label is neither 0 nor 1, or there are labels for more than one logit.

    """
    labels = known_labels(labels)
    check_outputs(reference, logits, labels)
    if labels is not None and logits.shape[1] > 1:
        raise DataError(
            "one label for each image does not say what is right where an image may have several",
            remedy="give images without labels: decisions are compared with float32's",
        )
    check_classes(labels, 2)
    finite = bool(np.isfinite(reference).all() and np.isfinite(logits).all())
    rates = rates_of(reference, logits, labels)
    found = _decisions(reference, logits, finite=finite)
    agreement = statistics.agreement(reference, logits, independent=True)
    lost = 1 - agreement if logits.shape[1] == 1 or found.f1 is None else 1 - found.f1
    sqnr = statistics.sqnr_db(reference, logits) if finite else None
    verdict = judge_decisions(
        delta=rates.delta_top1,
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


def _decisions(reference: NDArray[np.float32], logits: NDArray[np.float32], *, finite: bool) -> Decisions:
    distances = np.abs(reference.astype(np.float64) - logits) if finite else None
    return Decisions(
        yes=float((reference > 0).mean()),
        f1=statistics.decisions_f1(reference, logits),
        mean_distance=None if distances is None else float(distances.mean()),
        max_distance=None if distances is None else float(distances.max()),
    )
