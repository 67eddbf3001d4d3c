"""``edgevit.predict``."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.api.arguments import text
from edgevit.brief import printed
from edgevit.data.images import Channels, ImageSource
from edgevit.data.pictures import images_in
from edgevit.errors import InputError
from edgevit.models.outputs import Output, in_words, labelled
from edgevit.paths import path_given
from edgevit.progress import SILENT, Progress, ProgressCallback, progress_to
from edgevit.runtime import Prediction, load
from edgevit.runtime.arguments import (
    BundleLike,
    bundle_place,
    channels_given,
    images_given,
    is_one_image,
    threads_given,
    whole_number,
)
from edgevit.runtime.prediction import predictions, threshold_given

_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictionResult:
    """What the variant called ``variant`` says to ``images``, in their order.

    ``predictions`` has the likeliest classes of each image, the likeliest first; of an embedding model ``embeddings``
    (N, features) is there instead, and of one with outputs of other kinds ``outputs``, each (N, ...): with
    ``predictions`` beside them where one of them has labels.
    """

    variant: str
    images: tuple[ImageSource, ...]
    predictions: tuple[tuple[Prediction, ...], ...] = ()
    embeddings: NDArray[np.float32] | None = None
    outputs: Mapping[str, NDArray[np.float32]] | None = None

    __repr__ = printed

    def to_dict(self) -> dict[str, Any]:
        """Return what ``edgevit predict --json`` prints; images that are no files go by their place."""
        images = [_called(image, place) | self._answer(place) for place, image in enumerate(self.images)]
        plain: dict[str, Any] = msgspec.to_builtins({"variant": self.variant, "images": images}, enc_hook=str)
        return plain

    def _answer(self, place: int) -> dict[str, object]:
        answer: dict[str, object] = {"predictions": self.predictions[place]} if self.predictions else {}
        if self.embeddings is not None:
            answer["embedding"] = self.embeddings[place].tolist()
        if self.outputs is not None:
            answer["outputs"] = {name: statistics_of(given[place]) for name, given in self.outputs.items()}
        return answer


def predict(
    bundle: BundleLike,
    images: ImageSource | Iterable[ImageSource],
    *,
    top: int = 5,
    threshold: float | None = None,
    variant: str | None = None,
    threads: int = 0,
    channels: Channels = "rgb",
    progress: Progress | ProgressCallback | None = None,
) -> PredictionResult:
    """Classify images; models without classes give their features or other outputs.

    The model is loaded for this call only. To predict more than once, load it with ``edgevit.load``.

    Args:
        bundle: A bundle that ``edgevit.export`` made, or a pack: its path, or a ``Bundle``.
        images: One image or several: paths of files or folders, bytes, Pillow images, or uint8 arrays (H, W, 3).
        top: Number of classes to name.
        threshold: For labels that are decided one by one: the probability above which the answer is yes; by default,
            0.5.
        variant: Name of the variant to run; by default, the fastest that passed.
        threads: Number of threads; 0 lets the engine choose.
        channels: Order of an array's channels: "rgb" or "bgr".
        progress: Called with a ``ProgressEvent`` for each step and each note.

    Raises:
        ImageError: if an image is missing or damaged.
        DataError: if a folder has no images.
        BundleError, MissingDependencyError, VerificationError: as ``edgevit.load``.
        InputError: if an argument has the wrong type, or there are no labels for a threshold.

    """
    report, place, named = progress_to(progress), bundle_place(bundle), text("variant", variant)
    top, threshold = whole_number("top", top, least=1), threshold_given(threshold)
    channels, threads = channels_given(channels), threads_given(threads)
    listed = _files(images, report)
    parts = [listed[start : start + _AT_ONCE] for start in range(0, len(listed), _AT_ONCE)]
    with load(place, variant=named, threads=threads, progress=report) as model:
        if threshold is not None and not (labelled(model.output_types) if model.output_types else model.labels):
            given = in_words(model.output_types) if model.output_types else "features"
            raise InputError(
                f"a threshold decides on labels, and this model has none: it gives {given}",
                remedy="leave the threshold out, and put one on what the model gives",
            )
        shown = report if len(parts) > 1 else SILENT
        seen = shown.track(parts, total=len(parts), label="Predicting")
        name = model.variant.name
        if model.output_types:
            several = [model.outputs_batch(part, channels=channels) for part in seen]
            outputs = {each: np.concatenate([given[each] for given in several]) for each in model.output_names}
            own = labelled(model.output_types)
            found = () if own is None else _classes(outputs[own.name], own, top, threshold)
            return PredictionResult(variant=name, images=listed, predictions=found, outputs=outputs)
        if model.labels:
            answers = [
                tuple(found)
                for part in seen
                for found in model.predict_batch(part, top=top, threshold=threshold, channels=channels)
            ]
            return PredictionResult(variant=name, images=listed, predictions=tuple(answers))
        features = np.concatenate([model.embed_batch(part, channels=channels) for part in seen])
        return PredictionResult(variant=name, images=listed, embeddings=features)


def _classes(
    logits: NDArray[np.float32], output: Output, top: int, threshold: float | None
) -> tuple[tuple[Prediction, ...], ...]:
    chosen = predictions(logits, output.labels, top=top, independent=output.independent, threshold=threshold)
    return tuple(map(tuple, chosen))


def statistics_of(numbers: NDArray[np.float32]) -> dict[str, object]:
    """Return what is shown of an output for one image: its shape, and the range, mean and deviation of its numbers."""
    return {
        "shape": list(numbers.shape),
        "minimum": float(numbers.min()),
        "maximum": float(numbers.max()),
        "mean": float(numbers.mean()),
        "deviation": float(numbers.std()),
    }


def _files(images: ImageSource | Iterable[ImageSource], report: Progress) -> tuple[ImageSource, ...]:
    """Return the images one by one, those of a folder in its place.

    Raises:
        InputError, DataError: if there are none.
    """
    several = [cast("ImageSource", images)] if is_one_image(images) else images_given(images, report)
    listed: list[ImageSource] = []
    for image in several:
        listed += (
            images_in([Path(path_given("image", image))], report) if isinstance(image, (str, os.PathLike)) else [image]
        )
    if not listed:
        raise InputError("there are no images", remedy="give at least one")
    return tuple(listed)


def _called(image: ImageSource, place: int) -> dict[str, object]:
    return {"path": os.fspath(image)} if isinstance(image, (str, os.PathLike)) else {"index": place}
