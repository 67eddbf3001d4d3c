"""The training loop: AdamW, warm-up and cosine, augmentation, averaged weights, and a run that can be resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgevit.data.preprocess import Preprocess
from edgevit.errors import DataError, TrainingError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.vit import VisionTransformer
from edgevit.progress import SILENT, Progress
from edgevit.training.augment import augment
from edgevit.training.recipe import Recipe
from edgevit.training.run import EpochMetrics, Job, RunFolder

_EVALUATION_BATCH = 500


@dataclass(frozen=True, slots=True)
class Images:
    """Images in memory as the model sees them before normalisation, uint8 (N, H, W, C), and class indices (N,)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.pixels) == 0 or len(self.pixels) != len(self.labels):
            raise DataError(
                f"there are {len(self.pixels)} images and {len(self.labels)} labels",
                remedy="give a folder or CSV with labelled images",
            )


def train(
    folder: RunFolder,
    job: Job,
    initial: Checkpoint,
    training: Images,
    test: Images | None,
    *,
    state: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> Checkpoint:
    """Train on from ``initial``, write the model and its curves into ``folder``, and return the averaged weights.

    ``state`` is what ``RunFolder.resume`` gave. ``test`` images are measured after each epoch and decide nothing:
    the weights that are kept are those of the last epoch.

    Raises:
        TrainingError: if the loss is no longer a number; the last whole epoch's state is kept.
        StorageError: if the disk is full or not writable.
    """
    trainer = _Trainer(job.recipe, job.preprocess, initial.model(), len(training.labels), device)
    metrics = folder.metrics()
    if state is not None:
        trainer.restore(state)
    metrics = metrics[: trainer.epoch]
    while trainer.epoch < job.recipe.epochs:
        started = time.monotonic()
        loss, accuracy = trainer.run_epoch(training, progress)
        tested = trainer.evaluate(test) if test is not None else (None, None)
        row = EpochMetrics(
            epoch=trainer.epoch,
            learning_rate=trainer.learning_rate,
            train_loss=loss,
            train_accuracy=accuracy,
            test_loss=tested[0],
            test_accuracy=tested[1],
            seconds=time.monotonic() - started,
        )
        metrics.append(row)
        folder.save_metrics(metrics)
        folder.save_state(trainer.state())
        progress.note(_describe(row, job.recipe.epochs))
    checkpoint = Checkpoint(job.spec, trainer.averaged_weights(), job.preprocess, job.labels, str(folder.path))
    checkpoint.save(folder.model)
    folder.plot(metrics)
    return checkpoint


def _describe(row: EpochMetrics, epochs: int) -> str:
    left = (epochs - row.epoch) * row.seconds
    test = "" if row.test_accuracy is None else f", test accuracy {row.test_accuracy:.2%}"
    return (
        f"epoch {row.epoch}/{epochs}: loss {row.train_loss:.4f}, accuracy {row.train_accuracy:.2%}{test}, "
        f"{row.seconds:.0f} s, about {left / 60:.0f} min left"
    )


class _Trainer:
    """A model with its optimizer and averages, and how many epochs it has seen."""

    def __init__(
        self, recipe: Recipe, preprocess: Preprocess, model: VisionTransformer, examples: int, device: str
    ) -> None:
        self.recipe = recipe
        self.preprocess = preprocess
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.model, recipe.weight_decay), recipe.learning_rate)
        self.steps_per_epoch = max(1, examples // recipe.batch_size)
        self.epoch = 0
        self.learning_rate = 0.0

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def averaged_weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu() for name, tensor in self.average.module.state_dict().items()}

    def run_epoch(self, training: Images, progress: Progress) -> tuple[float, float]:
        """Pass once over the images; return the mean loss and accuracy on them, augmented."""
        # Seeded by the epoch, so that a resumed run sees what an uninterrupted one would have seen.
        random = np.random.default_rng([self.recipe.seed, self.epoch])
        self.model.train()
        total_loss, correct = 0.0, 0
        label = f"epoch {self.epoch + 1}/{self.recipe.epochs}"
        batches = self._batches(training, random)
        for step, (images, labels) in enumerate(progress.track(batches, total=self.steps_per_epoch, label=label)):
            self._set_rate(self.epoch * self.steps_per_epoch + step)
            logits, loss = self._step(images, labels)
            total_loss += loss
            correct += int((logits.argmax(1) == labels).sum())
        self.epoch += 1
        return total_loss / self.steps_per_epoch, correct / (self.steps_per_epoch * self._batch(training))

    def evaluate(self, test: Images) -> tuple[float, float]:
        """Return loss and accuracy of the averaged weights."""
        model = self.average.module.eval()
        loss, correct = 0.0, 0
        with torch.inference_mode():
            for start in range(0, len(test.labels), _EVALUATION_BATCH):
                part = slice(start, start + _EVALUATION_BATCH)
                images, labels = self._tensors(test.pixels[part], test.labels[part])
                logits = model(images)
                loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
                correct += int((logits.argmax(1) == labels).sum())
        return loss / len(test.labels), correct / len(test.labels)

    def _batch(self, training: Images) -> int:
        return min(self.recipe.batch_size, len(training.labels))

    def _batches(self, training: Images, random: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = random.permutation(len(training.labels))
        size = self._batch(training)
        for step in range(self.steps_per_epoch):
            chosen = order[step * size : (step + 1) * size]
            yield self._tensors(augment(training.pixels[chosen], self.recipe, random), training.labels[chosen])

    def _tensors(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(self.preprocess.normalize(pixels)).to(self.device, non_blocking=True)
        return images, torch.from_numpy(labels).to(self.device, non_blocking=True)

    def _set_rate(self, step: int) -> None:
        self.learning_rate = self.recipe.rate(step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate

    def _step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        bfloat16 = self.recipe.autocast == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            logits = self.model(images)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainingError(
                f"the loss became {value} in epoch {self.epoch + 1}",
                remedy="lower --learning-rate or raise --warmup-epochs; the last whole epoch is kept, resume from it",
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        return logits.detach(), value


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters: biases, norms, the class token and positions do not decay, as in DeiT and timm."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim <= 1 or name in {"cls_token", "reg_token", "pos_embed"}
        (others if plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
