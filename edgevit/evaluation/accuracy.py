"""Accuracy of a variant, and how close it is to float32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevit import statistics
from edgevit.backends.base import Session
from edgevit.bundle.manifest import Accuracy
from edgevit.errors import DataError
from edgevit.evaluation.evidence import drop_interval
from edgevit.evaluation.gate import MAX_DROP, top1_verdict
from edgevit.progress import SILENT, Progress

#: What a Dataset gives for an image without a label.
UNLABELLED = -1


class Interruption:
    """Whether Ctrl-C ended a pass over images whose beginning is worth keeping."""

    def __init__(self) -> None:
        self.raised = False


def answers_of(
    sessions: Mapping[str, Session],
    batches: Iterable[NDArray[np.float32]],
    *,
    total: int,
    progress: Progress = SILENT,
    interruption: Interruption | None = None,
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield each session's outputs (B, width) of each of ``total`` batches of images (B, C, H, W).

    With an ``interruption``, Ctrl-C ends this after a batch was answered as if there were no more images.

    Raises:
        DataError: if there is not one batch.

    """
    count = 0
    try:
        for images in progress.track(batches, total=total, label="Validating"):
            yield {name: session.infer(images) for name, session in sessions.items()}
            count += 1
    except KeyboardInterrupt:
        if interruption is None or not count:
            raise
        interruption.raised = True
    if not count:
        raise DataError("there are no images to measure on", remedy="give --data a source with at least one image")


def collect_logits(answers: Iterable[Mapping[str, NDArray[np.float32]]]) -> dict[str, NDArray[np.float32]]:
    """Return each session's logits (N, classes) of all images, of what ``answers_of`` yields."""
    logits: dict[str, list[NDArray[np.float32]]] = {}
    for found in answers:
        for name, rows in found.items():
            logits.setdefault(name, []).append(rows)
    return {name: np.concatenate(parts).astype(np.float32, copy=False) for name, parts in logits.items()}


class Rates(NamedTuple):
    """What only labels can tell; the fields are those of Accuracy."""

    top1: float | None = None
    top1_ci95: tuple[float, float] | None = None
    top5: float | None = None
    delta_top1: float | None = None
    mcnemar_p: float | None = None
    delta_top1_ci95: tuple[float, float] | None = None


def measure_accuracy(
    reference_logits: NDArray[np.float32],
    logits: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    *,
    data: str,
    data_sha256: str,
    max_drop: float = MAX_DROP,
) -> Accuracy:
    """Compare a variant's logits (N, classes) with float32's for the same images, in the same order.

    ``labels`` (N,) are class indices; None, or all -1, when there are none. ``data`` and ``data_sha256`` name the
    images. Top-5 is measured only where there are more than five classes, for else it is always right.

    Raises:
        DataError: if the sizes differ, or a label is not one of the classes.

    """
    labels = known_labels(labels)
    check_outputs(reference_logits, logits, labels)
    check_classes(labels, logits.shape[1])
    finite = bool(np.isfinite(reference_logits).all() and np.isfinite(logits).all())
    rates = rates_of(reference_logits, logits, labels)
    agreement = statistics.agreement(reference_logits, logits)
    images = int((labels >= 0).sum()) if labels is not None else None
    verdict = top1_verdict(
        delta_top1=rates.delta_top1, agreement=agreement, finite=finite, max_drop=max_drop, images=images
    )
    return Accuracy(
        data=data,
        data_sha256=data_sha256,
        images=len(logits),
        **rates._asdict(),
        agreement=agreement,
        kl=statistics.mean_kl(reference_logits, logits) if finite else None,
        sqnr_db=statistics.sqnr_db(reference_logits, logits) if finite else None,
        max_drop=max_drop,
        passed=verdict.passed,
        reason=verdict.reason,
    )


def rates_of(reference: NDArray[np.float32], logits: NDArray[np.float32], labels: NDArray[np.int64] | None) -> Rates:
    """Return what ``labels`` (N,) tell of logits (N, classes); a single logit decides between label 0 and 1."""
    if labels is None:
        return Rates()
    top5 = float(statistics.top_k_hits(logits, labels, 5).mean()) if logits.shape[1] > 5 else None
    before, after = (statistics.top_k_hits(one, labels, 1) for one in (reference, logits))
    return rates_of_hits(before, after, top5)


def rates_of_hits(before: NDArray[np.bool_], after: NDArray[np.bool_], top5: float | None = None) -> Rates:
    """Return the rates of images (N,) that float32 was right on ``before``, and a variant ``after``."""
    images = len(after)
    right, lost, gained = int(after.sum()), int((before & ~after).sum()), int((after & ~before).sum())
    low, high = drop_interval(lost, gained, images, confidence=0.95)
    return Rates(
        top1=right / images,
        top1_ci95=statistics.wilson_interval(right, images),
        top5=top5,
        delta_top1=(gained - lost) / images,
        mcnemar_p=statistics.mcnemar_p(lost, gained),
        delta_top1_ci95=(-high, -low),
    )


def known_labels(labels: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Return ``labels`` (N,), or None where not one image has one."""
    return None if labels is None or (labels == UNLABELLED).all() else labels


def check_outputs(
    reference: NDArray[np.float32], logits: NDArray[np.float32], labels: NDArray[np.int64] | None
) -> None:
    """Check that two models' outputs (N, width), and the labels (N,) if there are any, are of the same images.

    Raises:
        DataError: if they are not, or some images have labels and others none.

    """
    if logits.ndim != 2 or reference.shape != logits.shape or not len(logits):
        raise DataError(
            f"logits of shape {logits.shape} cannot be compared with float32's of shape {reference.shape}",
            remedy="measure both on the same images, with variants of one model",
        )
    if labels is None:
        return
    if labels.shape != (len(logits),):
        raise DataError(f"there are {len(labels)} labels for {len(logits)} images", remedy="give one label per image")
    if (labels == UNLABELLED).any():
        raise DataError(
            f"{int((labels == UNLABELLED).sum())} of {len(labels)} images have no label",
            remedy="label all of the images, or none",
        )


def check_classes(labels: NDArray[np.int64] | None, classes: int) -> None:
    """Check that ``labels`` are of ``classes``.

    Raises:
        DataError: if one is not.

    """
    if labels is None:
        return
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise DataError(
            f"label {wrong[0]} is not one of the model's {classes} classes",
            remedy="use data with the model's own classes, or without labels",
        )
