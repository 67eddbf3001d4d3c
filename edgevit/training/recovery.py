"""Has a model with merged tokens learn from itself with all of them, on images without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgevit.data.batches import Strict, batches, readable
from edgevit.data.dataset import Dataset, Subset
from edgevit.data.sources import load_dataset
from edgevit.errors import DataError, InputError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.token_merging import MergingEmbedder, MergingVisionTransformer
from edgevit.models.token_schedule import check_schedule
from edgevit.progress import SILENT, Progress
from edgevit.training.distributed import process_group
from edgevit.training.heads import freeze_all_but_norms
from edgevit.training.loaders import loader_of, workers_of
from edgevit.training.loop import TrainTask, train
from edgevit.training.objective import Normalise
from edgevit.training.recipe import RECOVERY, TrainRecipe
from edgevit.training.recovery_loss import RecoveryLoss, WholeModel
from edgevit.training.run import RunFolder, TrainJob
from edgevit.training.start import check_same_job
from edgevit.training.training_data import TrainingData

_BATCH = 32


@dataclass(frozen=True, slots=True)
class RecoveryRequest:
    """What to train: ``checkpoint``, merging ``schedule[i]`` tokens in block i, which leaves the share ``budget``.

    ``dense`` has it learn tokens, and features, not what it says of classes. The rest is as in ``start.Request``.
    """

    checkpoint: Checkpoint
    schedule: tuple[int, ...]
    budget: float
    data: TrainingData
    folder: Path
    recipe: TrainRecipe
    workers: int | None = None
    device: str = "auto"
    kept: str = ""
    dense: bool = False


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near a model is to the teacher: the mean loss over images, and agreement or cosine, 0..1."""

    loss: float
    likeness: float


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """What a finished run gave: how near the merged model was ``before`` and is ``after``, on ``images`` held out.

    ``measure`` is agreement or cosine. Both are None where there was no image to hold out.
    """

    checkpoint: Checkpoint
    folder: RunFolder
    schedule: tuple[int, ...]
    images: int
    measure: str
    before: Nearness | None
    after: Nearness | None


def recover(request: RecoveryRequest, *, resume: bool = False, progress: Progress = SILENT) -> RecoveryResult:
    """Train in a new run folder, or go on with the run in it.

    Raises:
        SpecError: if tokens of the model cannot be merged, or not so many.
        InputError: if the recipe asks for what needs labels, the folder is not new, or with ``resume`` has no run, or
            one of another request.
        DataError: if there are no images.
        TrainingError: if the loss is no longer a number.
    """
    with process_group(request.device) as processes:
        said = processes.progress(progress)
        folder, recipe, teacher = RunFolder(request.folder), request.recipe, request.checkpoint
        if not resume:
            processes.on_main(folder.check_new)
        _check(recipe)
        check_schedule(teacher.spec, request.schedule)
        student = _student(request, teacher).to(processes.device)
        training, held_out = _images(request.data, recipe, said)
        sha256 = teacher.sha256()
        job = TrainJob(
            data=request.data.name,
            data_sha256=training.fingerprint(said),
            validation_sha256=held_out.fingerprint(said) if held_out is not None else "",
            initial_sha256=sha256,
            teacher_sha256=sha256,
            spec=teacher.spec,
            preprocess=teacher.preprocess,
            labels=teacher.labels,
            recipe=recipe,
            token_budget=request.budget,
            token_schedule=request.schedule,
        )
        check_same_job(job, processes)
        state = processes.on_main(lambda: folder.resume(job) if resume else folder.begin(job))
        processes.on_main(lambda: folder.keep_recipe(request.kept))
        loss = RecoveryLoss(
            recipe,
            request.dense,
            teacher.activation == "sigmoid" or teacher.spec.classes == 1,
            Normalise(teacher.preprocess).to(processes.device),
            WholeModel(teacher.model(), dense=request.dense).to(processes.device),
        )
        no_labels, workers = np.zeros(len(training), dtype=np.int64), workers_of(request.workers, processes)
        loader = loader_of(training, no_labels, teacher.preprocess, recipe, workers, said)
        task = TrainTask(student, loss, loader, None, None, activation=teacher.activation)
        outcome = train(folder, job, task, processes, state=state, progress=said)
        kept = outcome.checkpoint
        near: list[Nearness | None] = [None, None]
        if held_out is not None:
            models = [_student(request, each) for each in (teacher, kept)]
            near = list(processes.on_main(lambda: _measure(models, loss, held_out, job, said)))
        return RecoveryResult(kept, folder, request.schedule, len(held_out or ()), loss.measure, *near)


def _check(recipe: TrainRecipe) -> None:
    """See to it that nothing is asked for that a model does not learn from itself with."""
    for name in ("label_smoothing", "patience", "sampling", "stochastic_depth", "teacher_weight"):
        if getattr(recipe, name) != getattr(RECOVERY, name):
            raise InputError(
                f"{name} says nothing to a model that learns from itself without labels",
                remedy="leave it out of the recipe",
            )


def _student(request: RecoveryRequest, checkpoint: Checkpoint) -> MergingVisionTransformer:
    kind = MergingEmbedder if request.dense else MergingVisionTransformer
    model = kind(checkpoint.model(), request.schedule).eval()
    if request.recipe.mode == "norms":
        freeze_all_but_norms(model)
    return model


def _images(data: TrainingData, recipe: TrainRecipe, progress: Progress) -> tuple[Dataset, Dataset | None]:
    """Return the images to learn from, and a share of them that is held out."""
    dataset = load_dataset(data.name, split="train", root=data.root, labelled=False, progress=progress)
    found = readable(dataset, unreadable=data.unreadable, progress=progress)
    if not len(found):
        raise DataError(f"{data.name} has no images", remedy="give a folder of images with --data")
    order = np.random.default_rng(recipe.seed).permutation(found)
    held = round(recipe.validation_share * len(order))
    if not held:
        return Subset(dataset, order), None
    return Subset(dataset, order[held:]), Subset(dataset, order[:held])


def _measure(
    models: Sequence[MergingVisionTransformer],
    loss: RecoveryLoss,
    images: Dataset,
    job: TrainJob,
    progress: Progress,
) -> list[Nearness]:
    """Return how near each of ``models`` is to the teacher on ``images``, as they are prepared for use."""
    device = loss.normalise.scale.device
    sums = torch.zeros(len(models), 2, dtype=torch.float64)
    models = [model.to(device) for model in models]
    stream = batches(images, job.preprocess, batch_size=_BATCH, unreadable=Strict())
    with torch.inference_mode():
        for batch in progress.track(stream, total=-(-len(images) // _BATCH), label="Comparing with all tokens"):
            pixels = torch.from_numpy(batch.images).to(device)
            wanted = loss.teacher(pixels)
            for row, model in zip(sums, models, strict=True):
                found = model(pixels)
                row += torch.tensor([float(loss.distance(found, wanted)), loss.likeness(found, wanted)])
    return [Nearness(*row) for row in (sums / len(images)).tolist()]
