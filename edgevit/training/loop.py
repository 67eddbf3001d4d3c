"""The epochs of a run: training, validation, what is kept and what is logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgevit.errors import TrainingError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.spec import OutputActivation
from edgevit.progress import Progress
from edgevit.training.autocast import faster_in_bfloat16
from edgevit.training.batch_plan import micro_batches
from edgevit.training.charts import draw_curves, write_confusion
from edgevit.training.distributed import Processes
from edgevit.training.loaders import Loader
from edgevit.training.objective import Loss
from edgevit.training.run import EpochMetrics, RunFolder, TrainJob
from edgevit.training.scoring import EvaluationScore, EvaluationSet, score
from edgevit.training.trainer import Epoch, Trainer

_SLOW_LOADER = 0.2  # share of the time spent waiting for images above which they are what limits speed


@dataclass(frozen=True, slots=True)
class TrainTask:
    """What a run does: ``model`` learns from ``loader``; ``validation`` chooses the epoch, ``test`` measures it.

    Where only the head learns, from features, ``model`` is the head alone; ``rest`` holds the other weights and
    ``prefix`` what the head's have in their names.
    """

    model: nn.Module
    objective: Loss
    loader: Loader
    validation: EvaluationSet | None
    test: EvaluationSet | None
    prefix: str = ""
    rest: Mapping[str, Tensor] | None = None
    activation: OutputActivation = "softmax"

    def checkpoint(self, job: TrainJob, weights: Mapping[str, Tensor], source: str) -> Checkpoint:
        """Return the whole model with the ``weights`` that were learnt."""
        whole = {**(self.rest or {}), **{f"{self.prefix}{name}": tensor for name, tensor in weights.items()}}
        return Checkpoint(job.spec, whole, job.preprocess, job.labels, source, activation=self.activation)


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """The weights that were kept, and how they did on which images, if there were any to measure on."""

    checkpoint: Checkpoint
    score: EvaluationScore | None
    images: str | None


def train(
    folder: RunFolder,
    job: TrainJob,
    task: TrainTask,
    processes: Processes,
    *,
    state: Mapping[str, Any] | None,
    progress: Progress,
) -> TrainOutcome:
    """Train until the last epoch, or until validation has not improved for the recipe's patience.

    Averaged weights are kept: those of the best epoch by validation, else of the last. ``state`` is what
    ``RunFolder.resume`` gave. Only the first process writes into ``folder``.

    Raises:
        TrainingError: if the loss is no longer a number; the weights of the last whole epoch are kept.
        StorageError: if the disk is full or not writable.
    """
    run = _Run(folder, job, task, processes, progress)
    run.begin(state)
    try:
        while not run.finished:
            run.epoch()
    except TrainingError:
        processes.on_main(run.keep_last)
        raise
    return run.finish()


@dataclass
class _Best:
    """The best epoch so far by validation."""

    epoch: int
    accuracy: float
    loss: float
    weights: dict[str, Tensor]


class _Run:
    def __init__(
        self, folder: RunFolder, job: TrainJob, task: TrainTask, processes: Processes, progress: Progress
    ) -> None:
        self.folder = folder
        self.job = job
        self.recipe = job.recipe
        self.task = task
        self.processes = processes
        self.progress = progress
        self.trainer = Trainer(task.model, task.objective, job.recipe, processes)
        self.best: _Best | None = None
        self.metrics: list[EpochMetrics] = []

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or no better one is to be expected."""
        in_vain = self.best is not None and self.trainer.epoch - self.best.epoch >= self.recipe.patience
        return in_vain or self.trainer.pace.is_over(self.trainer.epoch)

    def begin(self, state: Mapping[str, Any] | None) -> None:
        if state is None:
            if self.recipe.autocast == "auto":
                self._choose_type()
            # Before the first step, so that a run that is killed in its first epoch goes on in the same type.
            self._save()
            return
        self.trainer.restore(state)
        self.best = _Best(**state["best"]) if state["best"] else None
        metrics = self.processes.on_main(self.folder.metrics)
        self.metrics = metrics[: self.trainer.epoch]
        if self.finished:
            self.progress.note(f"this run was finished after epoch {self.trainer.epoch}: nothing is left to train")

    def _choose_type(self) -> None:
        loader = self.task.loader
        plan = micro_batches(loader.labels, self.recipe, 0, self.processes.rank, self.processes.count)
        first = next(plan)
        inputs = next(iter(loader.inputs([first])))
        labels = torch.from_numpy(loader.labels[first.indices])
        self.trainer.bfloat16, said = faster_in_bfloat16(
            self.trainer.model, self.task.objective, inputs, labels, first, self.processes, self.progress
        )
        self.progress.note(said)

    def epoch(self) -> None:
        result = self.trainer.run_epoch(self.task.loader, self.progress)
        validation, test = self._watch()
        if validation is not None and self._is_best(validation):
            weights = self.trainer.averaged_weights()
            self.best = _Best(self.trainer.epoch, validation.accuracy, validation.loss, weights)
        row = EpochMetrics(
            epoch=self.trainer.epoch,
            learning_rate=self.trainer.learning_rate,
            train_loss=result.loss,
            train_accuracy=result.accuracy,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            test_loss=test.loss if test else None,
            test_accuracy=test.accuracy if test else None,
            seconds=result.seconds,
            waited=result.waited,
        )
        self.metrics.append(row)
        self.processes.on_main(lambda: self.folder.save_metrics(self.metrics))
        self._save()
        self.progress.note(self._describe(row, result))

    def _watch(self) -> tuple[EvaluationScore | None, EvaluationScore | None]:
        """Measure on the validation images; where there are none, watch the test images, which decide nothing."""
        if self.task.validation is not None:
            return self._score(self.task.validation), None
        return None, self._score(self.task.test) if self.task.test is not None else None

    def _score(self, evaluation_set: EvaluationSet) -> EvaluationScore:
        return score(self.trainer.average.module, evaluation_set, len(self.job.labels), self.processes, self.progress)

    def _is_best(self, now: EvaluationScore) -> bool:
        return self.best is None or (now.accuracy, -now.loss) > (self.best.accuracy, -self.best.loss)

    def _save(self) -> None:
        best = vars(self.best) if self.best else None
        self.processes.on_main(lambda: self.folder.save_state({**self.trainer.state(), "best": best}))

    def keep_last(self) -> None:
        """Write the model of the last whole epoch."""
        state = self.folder.state()
        if state is None or state["epoch"] == 0:
            return
        self.trainer.restore(state)
        source = str(self.folder.path)
        self.task.checkpoint(self.job, self.trainer.averaged_weights(), source).save(self.folder.model)
        draw_curves(self.folder, self.metrics, self.task.objective.measure)

    def finish(self) -> TrainOutcome:
        if self.best is not None:
            self.trainer.average.module.load_state_dict(self.best.weights)
            ending = "finished" if self.trainer.pace.is_over(self.trainer.epoch) else "stopped early"
            self.progress.note(
                f"{ending} after epoch {self.trainer.epoch}; keeping the EMA weights of epoch {self.best.epoch}, "
                f"the best on the validation images ({self.best.accuracy:.2%})"
            )
        evaluation_set = self.task.test or self.task.validation
        result = self._score(evaluation_set) if evaluation_set is not None else None
        checkpoint = self.task.checkpoint(self.job, self.trainer.averaged_weights(), str(self.folder.path))
        if self.task.loader.remedy:
            self.progress.note(speed_limit(self.metrics, self.task.loader.remedy))

        def write() -> None:
            checkpoint.save(self.folder.model)
            draw_curves(self.folder, self.metrics, self.task.objective.measure)
            if evaluation_set is not None and result is not None:
                write_confusion(self.folder, result, evaluation_set.name, self.job.labels)

        self.processes.on_main(write)
        return TrainOutcome(checkpoint, result, evaluation_set.name if evaluation_set is not None else None)

    def _describe(self, row: EpochMetrics, result: Epoch) -> str:
        watched = ", ".join(
            f"{part} accuracy {accuracy:.2%}"
            for part, accuracy in (("validation", row.validation_accuracy), ("test", row.test_accuracy))
            if accuracy is not None
        )
        pace = self.trainer.pace
        waiting = result.waited / max(1e-9, result.seconds)
        return (
            f"epoch {row.epoch}{'' if pace.timed else f'/{self.recipe.epochs}'}: loss {row.train_loss:.4f}, "
            f"training {self.task.objective.measure} {row.train_accuracy:.2%}, "
            f"{watched + ', ' if watched else ''}{row.seconds:.0f} s ({waiting:.0%} waiting for images)"
            + ("" if pace.is_over(row.epoch) else f", about {pace.left(row.epoch) / 60:.0f} min left")
        )


def speed_limit(metrics: list[EpochMetrics], remedy: str) -> str:
    """Say whether the model or the making of its inputs limited the speed, and if these did, the ``remedy``."""
    share = sum(row.waited for row in metrics) / max(1e-9, sum(row.seconds for row in metrics))
    if share > _SLOW_LOADER:
        return f"the data limit the speed: {share:.0%} of the time was spent waiting for images; {remedy}"
    return f"the model limits the speed, not the data: {share:.0%} of the time was spent waiting for images"
