"""How near the outputs of a variant are to float32's, where they are no logits or features of an image alone.

They may be large: what is needed of them is taken batch by batch, and no output is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.bundle.manifest import Accuracy, OutputAccuracy
from edgevit.evaluation.bootstrap import ImageFigure
from edgevit.evaluation.boxes import Boxes
from edgevit.evaluation.evidence import Evidence, ratio
from edgevit.evaluation.output_limits import OutputLimits
from edgevit.models.outputs import BOX_KINDS, Output, parts
from edgevit.statistics import percentiles

Values = NDArray[np.float32]

_EPSILON = 1e-12
#: Depths below this share of an image's largest are left out of relative differences: they are next to nothing.
_LEAST_DEPTH = 1e-3
_NEAR = 1.25  # the factor of delta-1, as Eigen et al. 2014 have it


class _Measure(Protocol):
    """Takes what float32 and a variant give for images (B, *shape), and tells figures of ``OutputAccuracy``."""

    def add(self, reference: Values, found: Values) -> None: ...

    def figures(self) -> dict[str, float | None]: ...

    def of_images(self) -> dict[str, ImageFigure]: ...


def compare_outputs(
    outputs: Sequence[Output], reference: str, answers: Iterable[Mapping[str, Values]]
) -> dict[str, OutputsMeasure]:
    """Compare what ``accuracy.answers_of`` yields of each session with what the session ``reference`` gives."""
    compared: dict[str, OutputsMeasure] = {}
    for found in answers:
        for name, rows in found.items():
            compared.setdefault(name, OutputsMeasure(outputs)).add(found[reference], rows)
    return compared


class OutputsMeasure:
    """Compares the rows of a variant with float32's, batch by batch."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = tuple(outputs)
        self._measures: list[list[_Measure]] = [[Distance(output), *_own(output)] for output in self._outputs]
        self._boxes = Boxes.among(self._outputs)
        self._images, self._finite = 0, [True] * len(self._outputs)

    @property
    def images(self) -> int:
        """How many images were compared."""
        return self._images

    def add(self, reference: Values, found: Values) -> None:
        """Take rows (B, width) of the same images."""
        self._images += len(reference)
        before, after = (dict(self._named(rows)) for rows in (reference, found))
        for place, output in enumerate(self._outputs):
            one, other = before[output.name], after[output.name]
            self._finite[place] &= bool(np.isfinite(one).all() and np.isfinite(other).all())
            if self._finite[place]:
                for measure in self._measures[place]:
                    measure.add(one, other)
        if self._boxes is not None and all(self._finite):
            self._boxes.add(before, after)

    def _named(self, rows: Values) -> Iterator[tuple[str, Values]]:
        return ((output.name, part) for output, part in parts(self._outputs, rows))

    def accuracy(self, limits: OutputLimits, *, data: str, data_sha256: str) -> Accuracy:
        """Return all figures, and the verdict by ``limits``."""
        found = tuple(self._judged(place, output, limits) for place, output in enumerate(self._outputs))
        failed = [each for each in found if not each.passed]
        noisy = [each.sqnr_db for each in found if each.sqnr_db is not None]
        return Accuracy(
            data=data,
            data_sha256=data_sha256,
            images=self._images,
            top1=None,
            top1_ci95=None,
            top5=None,
            delta_top1=None,
            mcnemar_p=None,
            agreement=None,
            kl=None,
            sqnr_db=min(noisy, default=None),
            max_drop=None,
            passed=not failed,
            reason="; ".join(f"{each.name}: {each.reason}" for each in failed or found),
            outputs=found,
        )

    def evidence(self, limits: OutputLimits) -> dict[str, list[Evidence]]:
        """Return what the images show of each output by its name."""
        return {output.name: self._shown(place, output, limits) for place, output in enumerate(self._outputs)}

    def _shown(self, place: int, output: Output, limits: OutputLimits) -> list[Evidence]:
        judged = self._judged(place, output, limits)
        boxes = output.kind in BOX_KINDS and not all(self._finite)  # which need their scores
        if not self._finite[place] or boxes or (output.kind == "depth" and judged.delta1 is None):
            return [Evidence("failed", "some numbers are not finite" if boxes else judged.reason)]
        found: dict[str, ImageFigure] = {}
        for measure in self._measures[place]:
            found |= measure.of_images()
        if output.kind in BOX_KINDS and self._boxes is not None:
            found |= self._boxes.of_images()
        return limits.evidence(output.kind, found)

    def _judged(self, place: int, output: Output, limits: OutputLimits) -> OutputAccuracy:
        figures: dict[str, float | None] = {}
        if self._finite[place]:
            for measure in self._measures[place]:
                figures |= measure.figures()
            if output.kind in BOX_KINDS and self._boxes is not None:
                figures |= self._boxes.figures()
        found = OutputAccuracy(name=output.name, kind=output.kind, passed=False, reason="", **figures)
        verdict = limits.verdict(output.kind, found)
        return msgspec.structs.replace(found, passed=verdict.passed, reason=verdict.reason)


class Distance:
    """Cosine and SQNR of each vector: of a token, or of all numbers of an image; and the SQNR of everything."""

    def __init__(self, output: Output) -> None:
        self._kind, self._axes = output.kind, len(output.shape)
        self._signal = self._noise = 0.0
        self._cosines: list[NDArray[np.float64]] = []
        self._ratios: list[NDArray[np.float64]] = []
        self._of_images: list[NDArray[np.float64]] = []

    def add(self, reference: Values, found: Values) -> None:
        """Take the output of some images."""
        one, other = (self._vectors(each).astype(np.float64) for each in (reference, found))
        signal, noise = np.square(one).sum(axis=1), np.square(one - other).sum(axis=1)
        lengths = np.sqrt(signal * np.square(other).sum(axis=1))
        same = noise == 0
        self._cosines.append(np.where(same, 1.0, (one * other).sum(axis=1) / np.maximum(lengths, _EPSILON)))
        self._of_images.append(self._cosines[-1].reshape(len(reference), -1).mean(axis=1))
        with np.errstate(divide="ignore"):
            self._ratios.append(10 * np.log10(np.maximum(signal, _EPSILON) / noise)[~same])
        self._signal += float(signal.sum())
        self._noise += float(noise.sum())

    def _vectors(self, numbers: Values) -> Values:
        """Return what is compared as one vector each (V, K)."""
        if self._kind == "tokens":
            return numbers.reshape(-1, numbers.shape[-1])
        if self._kind == "features":
            return np.moveaxis(numbers, 1, -1).reshape(-1, numbers.shape[1])
        return numbers.reshape(len(numbers), -1)

    def of_images(self) -> dict[str, ImageFigure]:
        """Return each image's mean cosine."""
        cosines = np.concatenate(self._of_images)
        return {"cosine_mean": ImageFigure(np.stack([cosines, np.ones_like(cosines)], axis=1), ratio)}

    def figures(self) -> dict[str, float | None]:
        """Return cosines and ratios; None where there is no difference to relate to."""
        cosines, ratios = np.clip(np.concatenate(self._cosines), -1, 1), np.concatenate(self._ratios)
        known = {"cosine_mean": float(cosines.mean()), "cosine_p1": percentiles(cosines, [1])[0]}
        exact = self._noise == 0 or self._signal == 0
        several = self._kind in ("tokens", "features") and len(ratios) > 0
        return {
            **known,
            "sqnr_db": None if exact else 10 * float(np.log10(self._signal / self._noise)),
            "sqnr_db_mean": float(ratios.mean()) if several else None,
            "sqnr_db_p1": percentiles(ratios, [1])[0] if several else None,
        }


class Agreement:
    """The share of places whose largest logit is float32's."""

    def __init__(self) -> None:
        self._counts: list[NDArray[np.float64]] = []

    def add(self, reference: Values, found: Values) -> None:
        """Take logits (B, ..., classes)."""
        same = classes_in(reference, axis=-1) == classes_in(found, axis=-1)
        same = same.reshape(len(same), -1)
        self._counts.append(np.stack([same.sum(axis=1), np.full(len(same), same.shape[1])], axis=1).astype(np.float64))

    def of_images(self) -> dict[str, ImageFigure]:
        """Return how many places of each image are the same, and how many there are."""
        return {"agreement": ImageFigure(np.concatenate(self._counts), ratio)}

    def figures(self) -> dict[str, float | None]:
        """Return the share."""
        return {name: each.value for name, each in self.of_images().items()}


class Masks:
    """mIoU and pixel accuracy of masks, with float32's as the truth: over all pixels of all images."""

    def __init__(self, classes: int) -> None:
        self._classes = max(2, classes)
        self._counts: list[NDArray[np.float64]] = []
        self._threshold: float | None = None

    def add(self, reference: Values, found: Values) -> None:
        """Take scores (B, C, H, W)."""
        for one, other in zip(self._labels(reference), self._labels(found), strict=True):
            hits, before, after = (
                np.bincount(labels.ravel(), minlength=self._classes) for labels in (one[one == other], one, other)
            )
            self._counts.append(np.concatenate([hits, before, after]).astype(np.float64))

    def _labels(self, scores: Values) -> NDArray[np.int64]:
        """Return the class of each pixel; of one channel, float32's first images tell whether it is a probability."""
        if scores.shape[1] > 1:
            return np.asarray(scores.argmax(axis=1), dtype=np.int64)
        if self._threshold is None:
            self._threshold = 0.5 if float(scores.min()) >= 0 and float(scores.max()) <= 1 else 0.0
        return np.asarray(scores[:, 0] > self._threshold, dtype=np.int64)

    def of_images(self) -> dict[str, ImageFigure]:
        """Return each class's pixels (N, 3 C) on each image: that are the same, that float32 has, that were found."""
        return {"miou": ImageFigure(np.stack(self._counts), mean_iou)}

    def figures(self) -> dict[str, float | None]:
        """Return both, of the classes that either has somewhere."""
        hits, before, _ = np.split(np.sum(self._counts, axis=0), 3)
        return {"miou": self.of_images()["miou"].value, "pixel_accuracy": float(hits.sum() / before.sum())}


def mean_iou(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over classes of hits over union (R,), from pixels (R, 3 C) as ``Masks.of_images`` has them."""
    hits, before, after = np.split(sums, 3, axis=1)
    union = before + after - hits
    rates = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
    return np.asarray(rates.sum(axis=1) / (union > 0).sum(axis=1))


class Depths:
    """delta-1 and AbsRel of depth, with float32's as the truth, where that is not next to nothing."""

    def __init__(self) -> None:
        self._sums: list[tuple[float, float, float]] = []

    def add(self, reference: Values, found: Values) -> None:
        """Take depths (B, ..., H, W)."""
        for truth, depths in zip(reference.astype(np.float64), found.astype(np.float64), strict=True):
            known = truth > max(_LEAST_DEPTH * float(truth.max()), _EPSILON)
            one, other = truth[known], depths[known]
            factor = np.maximum(other / one, one / np.maximum(other, _EPSILON))
            self._sums.append((float((factor < _NEAR).sum()), float((np.abs(other - one) / one).sum()), len(one)))

    def of_images(self) -> dict[str, ImageFigure]:
        """Return, for each image, the pixels that are near, and the sum of relative differences, and all pixels."""
        sums = np.array(self._sums)
        return {"delta1": ImageFigure(sums[:, [0, 2]], ratio), "abs_rel": ImageFigure(sums[:, [1, 2]], ratio)}

    def figures(self) -> dict[str, float | None]:
        """Return both; None where no depth is above 0."""
        known = sum(count for *_, count in self._sums)
        return {name: each.value if known else None for name, each in self.of_images().items()}


def classes_in(scores: Values, *, axis: int) -> NDArray[np.int64]:
    """Return the class with the largest score; of a single one whether it is above 0."""
    if scores.shape[axis] == 1:
        return np.asarray(np.squeeze(scores, axis) > 0, dtype=np.int64)
    return np.asarray(scores.argmax(axis=axis), dtype=np.int64)


def _own(output: Output) -> list[_Measure]:
    match output.kind:
        case "logits" | "scores":
            return [Agreement()]
        case "segmentation":
            return [Masks(output.shape[0])]
        case "depth":
            return [Depths()]
        case _:
            return []
