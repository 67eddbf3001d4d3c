"""Sets up a run from what a user asks for: the data, the weights to start from, and the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgevit.data.batches import Unreadable, load_pixels
from edgevit.data.dataset import ArrayDataset, Dataset
from edgevit.data.labels import map_labels
from edgevit.data.preprocess import ChannelOrder, Preprocess
from edgevit.errors import InputError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.loading import load_checkpoint, local
from edgevit.models.overrides import Overrides, overridden
from edgevit.models.spec import BUILTIN, ModelSpec, preset
from edgevit.models.vit import VisionTransformer
from edgevit.progress import SILENT, Progress
from edgevit.training.distributed import Processes, process_group
from edgevit.training.heads import features, fit_head, freeze_all_but_norms, freeze_backbone, head_labels
from edgevit.training.loaders import FeatureLoader, loader_of, workers_of
from edgevit.training.loop import TrainOutcome, TrainTask, train
from edgevit.training.objective import Normalise, Objective, Teacher
from edgevit.training.recipe import USUAL_MODEL, TrainRecipe
from edgevit.training.recipe_file import ImageSettings, RunSettings, written
from edgevit.training.run import RunFolder, TrainJob
from edgevit.training.run_warnings import run_warnings
from edgevit.training.scoring import EvaluationSet, FeatureEvaluationSet, ImageEvaluationSet
from edgevit.training.training_data import TrainingData, TrainingSplits, load_splits

_NOTHING = Overrides()
_STATISTICS_IMAGES = 10_000  # enough for the mean and deviation of a channel to four digits


@dataclass(frozen=True, slots=True)
class Request:
    """What to train: the preset ``model`` from random weights, or the checkpoint ``source`` if there is one.

    ``image_size`` (height, width) has ``source`` interpolated to another resolution; ``heads`` is its number of
    attention heads, where it does not say it; ``raw_weights`` starts from those of the last step, where it has averaged
    ones. ``images`` is what is said of how images are prepared.
    ``teacher`` is a checkpoint to learn from. ``workers`` processes read images (None: as many as there are cores, up
    to 8), and ``device`` is "auto", "cpu" or "cuda": neither changes what a run ends with but for rounding.
    ``kept`` is the recipe as the folder keeps it.
    """

    data: TrainingData
    folder: Path
    recipe: TrainRecipe
    model: str = USUAL_MODEL
    source: str | None = None
    image_size: tuple[int, int] | None = None
    heads: int | None = None
    images: Overrides = _NOTHING
    teacher: str | None = None
    raw_weights: bool = False
    workers: int | None = None
    device: str = "auto"
    kept: str = ""

    @classmethod
    def of(cls, settings: RunSettings, recipe: TrainRecipe, folder: Path, unreadable: Unreadable) -> Request:
        """Return the request that ``settings``, which name images, and ``recipe`` are."""
        if settings.data is None:
            raise InputError("there are no images to train on", remedy="give them with --data")
        size = settings.image_size
        height, width = (size, size) if isinstance(size, int) else size or (0, 0)
        return cls(
            data=TrainingData(settings.data, unreadable, Path(settings.root) if settings.root is not None else None),
            folder=folder,
            recipe=recipe,
            model=settings.model or USUAL_MODEL,
            source=settings.source,
            image_size=(height, width) if size is not None else None,
            heads=settings.heads,
            images=_overrides(settings.images),
            teacher=settings.teacher,
            raw_weights=settings.raw_weights,
            workers=settings.workers,
            device=settings.device,
            kept=written(settings, recipe),
        )


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished run gave; ``accuracy`` in 0..1, of the weights that were kept, on the ``images`` named."""

    checkpoint: Checkpoint
    folder: RunFolder
    accuracy: float | None
    images: str | None


def start(request: Request, *, progress: Progress = SILENT) -> TrainingResult:
    """Train in a new run folder.

    Raises:
        InputError: if the folder is not new, or data or model cannot be used.
        TrainingError: if the loss is no longer a number.
    """
    return _run(request, RunFolder.begin, progress)


def resume(request: Request, *, progress: Progress = SILENT) -> TrainingResult:
    """Go on with the run in the folder, which must have been started with the same request.

    Raises:
        InputError: if there is no run, or it was started with another request.
        TrainingError: if the loss is no longer a number.
    """
    return _run(request, RunFolder.resume, progress)


def _run(
    request: Request, open_run: Callable[[RunFolder, TrainJob], dict[str, Any] | None], progress: Progress
) -> TrainingResult:
    with process_group(request.device) as processes:
        said = processes.progress(progress)
        folder = RunFolder(request.folder)
        if open_run is RunFolder.begin:
            processes.on_main(folder.check_new)  # before anything that takes long
        _check_models(request)
        splits = load_splits(request.data, request.recipe, said)
        initial, notes = _beginning(request, splits.training, said)
        teacher = load_checkpoint(request.teacher) if request.teacher is not None else None
        job = TrainJob(
            data=request.data.name,
            data_sha256=splits.training.fingerprint(said),
            validation_sha256=splits.validation.fingerprint(said) if splits.validation is not None else "",
            initial_sha256=initial.sha256(),
            teacher_sha256=teacher.sha256() if teacher is not None else "",
            spec=initial.spec,
            preprocess=initial.preprocess,
            labels=initial.labels,
            recipe=request.recipe,
        )
        check_same_job(job, processes)
        model = request.model if request.source is None else None
        for note in (*notes, *splits.notes, *run_warnings(request.recipe, splits.training, model)):
            said.note(note)
        taught = Teacher(teacher, job.labels, job.preprocess).to(processes.device) if teacher is not None else None
        state = processes.on_main(lambda: open_run(folder, job))
        processes.on_main(lambda: folder.keep_recipe(request.kept))
        task = _task(request, job, initial.model(), splits, taught, processes, said)
        outcome = train(folder, job, task, processes, state=state, progress=said)
        return _result(outcome, folder)


def _check_models(request: Request) -> None:
    """See to it that the models that ``request`` names are there, before images are read.

    Raises:
        InputError: if one is not.
        MissingDataError: if it is on the Hub, which cannot be reached.
    """
    if request.source is None:
        preset(request.model)
    for source in (request.source, request.teacher):
        if source is not None and source not in BUILTIN:
            local(source)


def _overrides(images: ImageSettings) -> Overrides:
    mean, std = ((level,) if isinstance(level, float) else level for level in (images.mean, images.std))
    return Overrides(
        preprocess=Path(images.preprocess) if images.preprocess is not None else None,
        mean=mean,
        std=std,
        resize=images.resize,
        crop=images.crop,
        interpolation=images.interpolation,
    )


def _result(outcome: TrainOutcome, folder: RunFolder) -> TrainingResult:
    accuracy = outcome.score.accuracy if outcome.score is not None else None
    return TrainingResult(outcome.checkpoint, folder, accuracy, outcome.images)


def _beginning(request: Request, training: Dataset, progress: Progress) -> tuple[Checkpoint, tuple[str, ...]]:
    """Return the weights to start from, for the labels of ``training``, and remarks on how they came about."""
    if request.source is None:
        return _random(request, training, progress), head_labels(training, ())[1]
    loaded = load_checkpoint(
        request.source,
        request.image_size,
        heads=request.heads,
        raw_weights=request.raw_weights,
        images=request.images,
    )
    labels, counted = head_labels(training, loaded.labels)
    checkpoint, said = fit_head(loaded, labels)
    return checkpoint, (*checkpoint.notes, *counted, said)


def _random(request: Request, training: Dataset, progress: Progress) -> Checkpoint:
    spec = msgspec.structs.replace(preset(request.model), classes=len(training.class_names))
    preprocess = overridden(_measured_preprocess(spec, training, progress), request.images)
    with torch.random.fork_rng():
        torch.manual_seed(request.recipe.seed)
        weights = VisionTransformer(spec).state_dict()
    return Checkpoint(spec, weights, preprocess, training.class_names, source=f"seed {request.recipe.seed}")


def check_same_job(job: TrainJob, processes: Processes) -> None:
    """See to it that all processes found the same images and weights on their machines."""
    if processes.on_main(lambda: job) != job:
        raise InputError(
            f"process {processes.rank} has other images or weights than process 0",
            remedy="copy the same data and checkpoints to each machine, at the same paths",
        )


def _task(
    request: Request,
    job: TrainJob,
    model: VisionTransformer,
    splits: TrainingSplits,
    teacher: Teacher | None,
    processes: Processes,
    progress: Progress,
) -> TrainTask:
    recipe = job.recipe
    evaluation_sets = [
        ImageEvaluationSet(name, dataset, map_labels(dataset, job.labels), job.preprocess)
        if dataset is not None
        else None
        for name, dataset in (("validation", splits.validation), ("test", splits.test))
    ]
    if recipe.mode == "norms":
        freeze_all_but_norms(model)
    if recipe.mode == "probe":
        freeze_backbone(model)
        # Inputs that never change give features that never change; a teacher has to see the images, though.
        if recipe.shows_images_unchanged and teacher is None:
            return _task_on_features(job, model, splits, processes, progress)
    objective = Objective(recipe, job.spec.classes, Normalise(job.preprocess).to(processes.device), teacher)
    labels, workers = map_labels(splits.training, job.labels), workers_of(request.workers, processes)
    loader = loader_of(splits.training, labels, job.preprocess, recipe, workers, progress)
    return TrainTask(model, objective, loader, evaluation_sets[0], evaluation_sets[1])


def _task_on_features(
    job: TrainJob, model: VisionTransformer, splits: TrainingSplits, processes: Processes, progress: Progress
) -> TrainTask:
    """Show each image to the backbone once; the head learns from what it gave."""

    def seen(dataset: Dataset, name: str) -> torch.Tensor:
        return features(model, dataset, job.preprocess, name, processes, progress)

    evaluation_sets: list[EvaluationSet | None] = [
        FeatureEvaluationSet(name, seen(dataset, name), map_labels(dataset, job.labels))
        if dataset is not None
        else None
        for name, dataset in (("validation", splits.validation), ("test", splits.test))
    ]
    loader = FeatureLoader(seen(splits.training, "training"), map_labels(splits.training, job.labels))
    rest = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    objective = Objective(job.recipe, job.spec.classes, nn.Identity())
    return TrainTask(model.head, objective, loader, evaluation_sets[0], evaluation_sets[1], prefix="head.", rest=rest)


def _measured_preprocess(spec: ModelSpec, training: Dataset, progress: Progress) -> Preprocess:
    raw = _preprocess(spec, (0.0,) * spec.channels, (1.0,) * spec.channels)
    chosen = None
    if not isinstance(training, ArrayDataset) and len(training) > _STATISTICS_IMAGES:
        chosen = np.random.default_rng(0).choice(len(training), _STATISTICS_IMAGES, replace=False)
    return _preprocess(spec, *_statistics(load_pixels(training, raw, indices=chosen, progress=progress)))


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
