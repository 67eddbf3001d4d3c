"""From what a user asks for to a finished run: the data, what it needs for preprocessing, and the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgevit.data.batches import load_pixels
from edgevit.data.dataset import Dataset
from edgevit.data.preprocess import ChannelOrder, Preprocess
from edgevit.data.sources import load_dataset, map_labels
from edgevit.errors import DataError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.spec import ModelSpec, preset
from edgevit.progress import SILENT, Progress
from edgevit.training.loop import Images, train
from edgevit.training.recipe import Recipe
from edgevit.training.run import Job, RunFolder


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished run gave; ``test_accuracy`` in 0..1, of the weights that were kept."""

    checkpoint: Checkpoint
    folder: RunFolder
    test_accuracy: float | None


def start(data: str, model: str, folder: Path, recipe: Recipe, *, progress: Progress = SILENT) -> TrainingResult:
    """Train the preset ``model`` on ``data`` from random weights, in a new run folder.

    Raises:
        InputError: if the folder is not new, or data or model cannot be used.
        TrainingError: if the loss is no longer a number.
    """
    return _run(data, model, RunFolder(folder), recipe, RunFolder.begin, progress)


def resume(data: str, model: str, folder: Path, recipe: Recipe, *, progress: Progress = SILENT) -> TrainingResult:
    """Go on with the run in ``folder``, which must have been started with the same arguments.

    Raises:
        InputError: if there is no run, or it was started with other arguments.
        TrainingError: if the loss is no longer a number.
    """
    return _run(data, model, RunFolder(folder), recipe, RunFolder.resume, progress)


def _run(
    data: str,
    model: str,
    folder: RunFolder,
    recipe: Recipe,
    opening: Callable[[RunFolder, Job], Mapping[str, Any] | None],
    progress: Progress,
) -> TrainingResult:
    training, test = load_dataset(data, split="train"), load_dataset(data, split="test")
    spec = _spec_for(preset(model), training)
    raw = _preprocess(spec, (0.0,) * spec.channels, (1.0,) * spec.channels)
    pixels = load_pixels(training, raw)
    mean, std = _statistics(pixels)
    preprocess = _preprocess(spec, mean, std)
    job = Job(
        data=data,
        data_sha256=training.fingerprint(),
        spec=spec,
        preprocess=preprocess,
        labels=training.class_names,
        recipe=recipe,
    )
    state = opening(folder, job)
    test_images = Images(load_pixels(test, preprocess), map_labels(test, job.labels))
    checkpoint = train(folder, job, Images(pixels, training.labels), test_images, state=state, progress=progress)
    return TrainingResult(checkpoint, folder, folder.metrics()[-1].test_accuracy)


def _spec_for(spec: ModelSpec, training: Dataset) -> ModelSpec:
    classes = len(training.class_names)
    if classes < 2:
        raise DataError(
            f"{training.name} has {classes} class, and a classifier needs at least two",
            remedy="add a folder with images of what is not of that class",
        )
    if (training.labels < 0).any():
        raise DataError(f"{training.name} has images without a label", remedy="label them, or leave them out")
    return msgspec.structs.replace(spec, classes=classes)


def _preprocess(spec: ModelSpec, mean: tuple[float, ...], std: tuple[float, ...]) -> Preprocess:
    # Micro images are used as they are; larger ones keep a margin around the crop, as is usual for ImageNet.
    edge = max(spec.image_size)
    order: ChannelOrder = "L" if spec.channels == 1 else "RGB"
    return Preprocess(
        size=spec.image_size,
        resize=edge if edge < 64 else round(edge * 256 / 224),
        mean=mean,
        std=std,
        channel_order=order,
    )


def _statistics(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, in 0..1."""
    counts = [np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in range(pixels.shape[-1])]
    levels = np.arange(256) / 255
    means = [float((count * levels).sum() / count.sum()) for count in counts]
    deviations = [
        float(np.sqrt((count * (levels - mean) ** 2).sum() / count.sum()))
        for count, mean in zip(counts, means, strict=True)
    ]
    # A constant channel carries nothing; 1 keeps it finite.
    return tuple(round(mean, 4) for mean in means), tuple(round(deviation, 4) or 1.0 for deviation in deviations)
