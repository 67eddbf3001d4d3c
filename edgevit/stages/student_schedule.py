"""How many tokens each block of a student merges, for a budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.bundle.store import Bundle
from edgevit.data.batches import Unreadable, batches
from edgevit.data.dataset import Dataset
from edgevit.errors import InputError
from edgevit.files import scratch_folder
from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.criteria import SqnrLimit
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.calibration.image_pass import single_images
from edgevit.quantization.token_merging.losses import MergedModels, share_left
from edgevit.quantization.token_merging.schedule import MergingCosts, find_schedule

if TYPE_CHECKING:
    from edgevit.models.checkpoints import Checkpoint

_CHOSEN_ON = 32  # images
_BATCH = 8
_MERGE_TIME = 0.01  # what merging once takes, as a share of the model's time


@contextmanager
def float32_of(checkpoint: Checkpoint, bundle: Bundle | None, progress: Progress = SILENT) -> Iterator[Path]:
    """Give the float32 ONNX file of ``bundle``, or one of ``checkpoint`` where there is none."""
    if bundle is not None:
        yield bundle.verify_float32().path
        return
    from edgevit.graph.torch_export import export_onnx

    with scratch_folder() as folder:
        path = folder / "model.onnx"
        export_onnx(
            checkpoint.model(),
            path,
            preprocess=checkpoint.preprocess,
            labels=checkpoint.labels,
            activation=checkpoint.activation,
            progress=progress,
        )
        yield path


def own_schedule(bundle: Bundle | None, budget: float) -> tuple[int, ...] | None:
    """Return the schedule by which a variant of ``bundle`` has this ``budget``; None if none has."""
    variants = () if bundle is None else bundle.manifest.variants
    found = (variant.token_merging for variant in variants if variant.token_merging is not None)
    return next((merging.schedule for merging in found if merging.budget == budget), None)


def schedule_for(
    budget: float,
    float32: Path,
    checkpoint: Checkpoint,
    bundle: Bundle | None,
    images: Dataset,
    unreadable: Unreadable,
    progress: Progress = SILENT,
) -> tuple[int, ...]:
    """Return the schedule that leaves ``budget`` of the multiply-adds of ``float32`` and is measured to cost least.

    Raises:
        InputError: if merging cannot save so much.
        GraphError: if tokens cannot be merged in the model.
        DataError: if there are no images.
    """
    progress.note("Looking for how many tokens each block can merge")
    typed = () if bundle is None else bundle.manifest.typed_outputs
    independent = checkpoint.activation == "sigmoid"
    read = batches(images, checkpoint.preprocess, batch_size=_BATCH, unreadable=unreadable)
    few = islice(single_images(batch.images for batch in read), _CHOSEN_ON)
    with scratch_folder() as scratch:
        models = MergedModels(
            float32,
            Evaluator(float32, few, independent=independent, typed=typed),
            SqnrLimit(0.0, typed),
            scratch,
        )
        loss = models.losses(progress)
        work = models.work(loss.shape[1])
        schedule = find_schedule(MergingCosts(models.counts[: loss.shape[1]], loss, work, work, _MERGE_TIME), budget)
    if schedule is None or not any(schedule):
        raise InputError(
            f"a token budget of {budget:g} cannot be had in this model: each block can merge half of its tokens"
            if schedule is None
            else f"a token budget of {budget:g} merges no tokens",
            remedy=f"give a {'larger' if schedule is None else 'smaller'} one with --token-budget",
        )
    return schedule


def schedule_budget(schedule: tuple[int, ...], float32: Path) -> float:
    """Return the share of the multiply-adds that ``schedule`` leaves, as a budget in whole per cent."""
    return min(0.99, max(0.01, round(share_left(float32, schedule), 2)))
