"""What a sample shows of a variant whose logits decide one by one: a yes or no, or one of several labels each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevit import statistics
from edgevit.evaluation.accuracy import known_labels
from edgevit.evaluation.bootstrap import ImageFigure, Sums
from edgevit.evaluation.evidence import SURE_MARGIN, Evidence, drop_evidence, figure_evidence, flips_evidence


def decisions_evidence(
    reference: NDArray[np.float32], logits: NDArray[np.float32], labels: NDArray[np.int64] | None, max_drop: float
) -> list[Evidence]:
    """Return what images show of a loss of at most ``max_drop`` points; arguments as in ``measure_decisions``.

    As there, both the share of images that are decided rightly and, where an image may have several labels, the F1 of
    the yes decisions must be kept; without labels, of several labels the F1 with float32's decisions as the truth.
    """
    labels = known_labels(labels)
    before, after = reference > 0, logits > 0
    if before.all() or not before.any():
        said = "float32 decides all of these images alike, which shows nothing: give images of both kinds"
        return [Evidence("not shown", said)]
    several = logits.shape[1] > 1
    if labels is None:
        if several:
            found = ImageFigure(_counts(before, after), _f1)
            return [figure_evidence(found, "F1 with float32's decisions", least=1 - max_drop / 100)]
        sure = np.abs(np.tanh(reference[:, 0] / 2)) >= SURE_MARGIN  # the distance of the probabilities of yes and no
        return [flips_evidence(int(((before != after)[:, 0] & sure).sum()), int(sure.sum()), len(logits), max_drop)]
    truth = labels.reshape(len(labels), -1) == 1
    was, now = (((one > 0) == truth).all(axis=1) & statistics.finite_rows(one) for one in (reference, logits))
    lost, gained = int((was & ~now).sum()), int((now & ~was).sum())
    shown = [drop_evidence(lost, gained, len(logits), max_drop, what="what is decided rightly")]
    if several:
        both = ImageFigure(np.concatenate([_counts(truth, before), _counts(truth, after)], axis=1), _change_of_f1)
        shown.append(figure_evidence(both, "change of the labels' F1", least=-max_drop / 100, worst=-1.0))
    return shown


def _counts(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> Sums:
    """Return, for each image (N, 2), twice the decisions that are a right yes, and the yeses of both."""
    return np.stack([2 * (truth & found).sum(axis=1), truth.sum(axis=1) + found.sum(axis=1)], axis=1).astype(np.float64)


def _f1(sums: Sums) -> Sums:
    return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)


def _change_of_f1(sums: Sums) -> Sums:
    return np.asarray(_f1(sums[:, 2:]) - _f1(sums[:, :2]))
