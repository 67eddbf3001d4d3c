"""From what a user asks for to a finished run: the data, the weights to start from, and the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgevit.data.batches import Unreadable, load_readable
from edgevit.data.dataset import Dataset, Subset
from edgevit.data.preprocess import ChannelOrder, Preprocess
from edgevit.data.sources import Split, load_dataset, map_labels
from edgevit.errors import DataError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.spec import ModelSpec
from edgevit.models.vit import VisionTransformer
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


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Where the images come from, as a user says it; ``unreadable`` collects those that could not be read."""

    name: str
    unreadable: Unreadable
    root: Path | None = None

    def load(self, split: Split, progress: Progress) -> Dataset:
        """Return the images of one part.

        Raises:
            DataError: if there are none.
            MissingDataError: if they are not on this machine and cannot be fetched.
        """
        return load_dataset(self.name, split=split, root=self.root, progress=progress)


def fresh(spec: ModelSpec, data: TrainingData, seed: int, *, progress: Progress = SILENT) -> Checkpoint:
    """Return random weights for ``spec`` and the classes of ``data``, with the preprocessing that its images ask for.

    Raises:
        DataError: if the images cannot be used, or are of one class only.
    """
    training = data.load("train", progress)
    classes = len(training.class_names)
    if classes < 2:
        raise DataError(
            f"{training.name} has {classes} class, and a classifier needs at least two",
            remedy="add a folder with images of what is not of that class",
        )
    spec = msgspec.structs.replace(spec, classes=classes)
    raw = _preprocess(spec, (0.0,) * spec.channels, (1.0,) * spec.channels)
    mean, std = _statistics(load_readable(training, raw, unreadable=data.unreadable, progress=progress).pixels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = VisionTransformer(spec).state_dict()
    return Checkpoint(spec, weights, _preprocess(spec, mean, std), training.class_names, source=f"seed {seed}")


def start(
    data: TrainingData, initial: Checkpoint, folder: Path, recipe: Recipe, *, progress: Progress = SILENT
) -> TrainingResult:
    """Train ``initial`` on ``data``, in a new run folder.

    Raises:
        InputError: if the folder is not new, or the data cannot be used.
        TrainingError: if the loss is no longer a number.
    """
    run = RunFolder(folder)
    run.check_new()
    return _run(data, initial, run, recipe, RunFolder.begin, progress)


def resume(
    data: TrainingData, initial: Checkpoint, folder: Path, recipe: Recipe, *, progress: Progress = SILENT
) -> TrainingResult:
    """Go on with the run in ``folder``, which must have been started with the same arguments.

    Raises:
        InputError: if there is no run, or it was started with other arguments.
        TrainingError: if the loss is no longer a number.
    """
    return _run(data, initial, RunFolder(folder), recipe, RunFolder.resume, progress)


def _run(
    data: TrainingData,
    initial: Checkpoint,
    folder: RunFolder,
    recipe: Recipe,
    opening: Callable[[RunFolder, Job], Mapping[str, Any] | None],
    progress: Progress,
) -> TrainingResult:
    training, test = data.load("train", progress), data.load("test", progress)
    if (training.labels < 0).any():
        raise DataError(f"{training.name} has images without a label", remedy="label them, or leave them out")
    labels = map_labels(training, initial.labels)
    found = load_readable(training, initial.preprocess, unreadable=data.unreadable, progress=progress)
    job = Job(
        data=data.name,
        data_sha256=Subset(training, found.indices).fingerprint(progress),
        spec=initial.spec,
        preprocess=initial.preprocess,
        labels=initial.labels,
        recipe=recipe,
        initial_sha256=initial.sha256(),
    )
    state = opening(folder, job)
    images = Images(found.pixels, labels[found.indices])
    if _same_images(test, training, found.indices, job.data_sha256):
        progress.note(f"{data.name} has no images apart for testing: accuracy is measured while training alone")
        test_images = None
    else:
        test_images = _read(test, initial, data.unreadable, progress)
    checkpoint = train(folder, job, initial, images, test_images, state=state, progress=progress)
    return TrainingResult(checkpoint, folder, folder.metrics()[-1].test_accuracy)


def _same_images(test: Dataset, training: Dataset, indices: NDArray[np.int64], sha256: str) -> bool:
    """Say whether the test images are the training images: accuracy on them would show memory, not skill."""
    return np.array_equal(test.labels, training.labels) and Subset(test, indices).fingerprint() == sha256


def _read(dataset: Dataset, model: Checkpoint, unreadable: Unreadable, progress: Progress) -> Images:
    labels = map_labels(dataset, model.labels)
    read = load_readable(dataset, model.preprocess, unreadable=unreadable, progress=progress)
    return Images(read.pixels, labels[read.indices])


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
