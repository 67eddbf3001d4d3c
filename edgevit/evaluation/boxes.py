"""Whether a detector's boxes are float32's: matched by class and overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevit.evaluation.bootstrap import ImageFigure
from edgevit.evaluation.evidence import ratio
from edgevit.models.outputs import BOX_KINDS, Output

_FOUND = 0.5  # the probability above which a box counts, and the IoU from which two are the same
_BEST = 5  # boxes that count where none is so probable


@dataclass(frozen=True, slots=True)
class _Detections:
    """The boxes (K, 4), as corners, that a model finds on an image, the surest first, with classes and scores (K,)."""

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]


class Boxes:
    """Matches a variant's boxes with float32's, image by image.

    A box counts where the softmax of its scores, of whose classes the last is no object, as in DETR, is above 0.5;
    where float32 has no such box on an image, the five surest of both models. Boxes match, one with one, that have the
    same class and an IoU of at least 0.5. Boxes without scores match the box in the same place.
    """

    def __init__(self, boxes: Output, scores: Output | None) -> None:
        self._boxes, self._scores = boxes, scores
        self._counts: list[tuple[int, int]] = []
        self._overlap = self._difference = 0.0

    @classmethod
    def among(cls, outputs: Sequence[Output]) -> Boxes | None:
        """Return what measures the first boxes of ``outputs``, with the scores of as many; None without boxes."""
        boxes = next((output for output in outputs if output.kind in BOX_KINDS), None)
        if boxes is None:
            return None
        of_boxes = (each for each in outputs if each.kind == "scores" and each.shape[0] == boxes.shape[0])
        return cls(boxes, next(of_boxes, None))

    def add(self, before: Mapping[str, NDArray[np.float32]], after: Mapping[str, NDArray[np.float32]]) -> None:
        """Take the outputs of some images, by their names."""
        for index in range(len(before[self._boxes.name])):
            one = self._detections(before, index, most=None)
            none = self._scores is not None and not len(one.boxes)
            if none:
                one = self._detections(before, index, most=_BEST)
            self._match(one, self._detections(after, index, most=_BEST if none else None))

    def of_images(self) -> dict[str, ImageFigure]:
        """Return how many boxes of both models match on each image, and how many there are."""
        return {"box_agreement": ImageFigure(np.array(self._counts, dtype=np.float64).reshape(-1, 2) * (2, 1), ratio)}

    def figures(self) -> dict[str, float | None]:
        """Return how far boxes agree."""
        matched = sum(each for each, _ in self._counts)
        return {
            "box_agreement": self.of_images()["box_agreement"].value,
            "box_iou": self._overlap / matched if matched else None,
            "score_difference": self._difference / matched if matched and self._scores else None,
        }

    def _detections(self, given: Mapping[str, NDArray[np.float32]], index: int, *, most: int | None) -> _Detections:
        """Return what counts on an image: the ``most`` surest, or without a number all that are sure enough."""
        boxes = _corners(given[self._boxes.name][index].astype(np.float64), centred=self._boxes.kind == "boxes")
        if self._scores is None:
            nothing = np.zeros(len(boxes))
            return _Detections(boxes, np.arange(len(boxes), dtype=np.int64), nothing)
        likely = _softmax(given[self._scores.name][index].astype(np.float64))[:, : max(1, self._scores.shape[1] - 1)]
        scores, classes = likely.max(axis=1), likely.argmax(axis=1)
        chosen = np.argsort(-scores, kind="stable")[: int((scores > _FOUND).sum()) if most is None else most]
        return _Detections(boxes[chosen], classes[chosen], scores[chosen])

    def _match(self, one: _Detections, other: _Detections) -> None:
        matched, found = 0, len(one.boxes) + len(other.boxes)
        if len(one.boxes) and len(other.boxes):
            overlaps = _overlaps(one.boxes, other.boxes)
            overlaps[one.classes[:, None] != other.classes[None]] = 0
            for place in range(len(one.boxes)):
                best = int(overlaps[place].argmax())
                if overlaps[place, best] >= _FOUND:
                    matched += 1
                    self._overlap += float(overlaps[place, best])
                    self._difference += abs(float(one.scores[place] - other.scores[best]))
                    overlaps[:, best] = 0
        self._counts.append((matched, found))


def _corners(boxes: NDArray[np.float64], *, centred: bool) -> NDArray[np.float64]:
    if not centred:
        return boxes
    centres, halves = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def _overlaps(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU of each box with each (K, L)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(axis=1) for each in (one, other)]
    union = areas[0][:, None] + areas[1][None] - both
    result: NDArray[np.float64] = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return result


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result
