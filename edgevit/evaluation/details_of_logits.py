"""What logits that were measured already tell of classes, mistakes, flipped images and confidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.manifest import Manifest
from edgevit.evaluation.accuracy import known_labels
from edgevit.evaluation.accuracy_details import ConfusionShift
from edgevit.evaluation.calibration_error import CalibrationError, calibration_error
from edgevit.evaluation.class_changes import ClassChanges, class_changes, confusion_shifts
from edgevit.evaluation.flips import Flips, flipped_decisions, flipped_images
from edgevit.statistics import as_classes, finite_rows, top_k_hits


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitDetails:
    """What a variant's logits show beside float32's; ``classes`` and calibration errors are None without labels."""

    labelled: bool
    flips: Flips
    shifts: tuple[ConfusionShift, ...] = ()
    classes: ClassChanges | None = None
    calibration: CalibrationError | None = None
    float32_calibration: CalibrationError | None = None


def details_of_logits(
    manifest: Manifest,
    reference: NDArray[np.float32],
    logits: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    describe: Callable[[int], str],
) -> LogitDetails:
    """Compare a classifier's logits (N, classes) with float32's for the same images, in the same order.

    ``labels`` are (N,), or (N, labels) of 0 and 1 where an image may have several; None, or all -1, without any.
    ``describe`` says what to call image 0..N-1.
    """
    labels = known_labels(labels)
    names = manifest.outcomes or tuple(map(str, range(max(2, manifest.classes))))
    if manifest.independent and manifest.classes > 1:
        return _of_decisions(reference, logits, labels, names, describe)
    flips = flipped_images(reference, logits, labels, names, describe)
    before, after = (as_classes(each).argmax(axis=1) for each in (reference, logits))
    if labels is None:
        return LogitDetails(labelled=False, flips=flips, shifts=confusion_shifts(before, before, after, names))
    right, still = (top_k_hits(each, labels, 1) for each in (reference, logits))
    return LogitDetails(
        labelled=True,
        flips=flips,
        shifts=confusion_shifts(labels, before, after, names),
        classes=class_changes(right, still, labels, names),
        calibration=calibration_error(logits, labels),
        float32_calibration=calibration_error(reference, labels),
    )


def _of_decisions(
    reference: NDArray[np.float32],
    logits: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    names: tuple[str, ...],
    describe: Callable[[int], str],
) -> LogitDetails:
    """Do so where each logit is a decision: a class is then a label, and each image an image of it."""
    flips = flipped_decisions(reference, logits, labels, names, describe)
    if labels is None or labels.ndim != 2:
        return LogitDetails(labelled=False, flips=flips)
    right, still = (((each > 0) == (labels > 0)) & finite_rows(each)[:, None] for each in (reference, logits))
    places = np.broadcast_to(np.arange(len(names), dtype=np.int64), labels.shape)
    return LogitDetails(
        labelled=True,
        flips=flips,
        classes=class_changes(right.reshape(-1), still.reshape(-1), places.reshape(-1), names),
        calibration=calibration_error(logits, labels, independent=True),
        float32_calibration=calibration_error(reference, labels, independent=True),
    )
