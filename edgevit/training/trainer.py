"""The training steps of a run: a model with its optimizer and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgevit.errors import TrainingError
from edgevit.progress import Progress
from edgevit.training import optimizer as optimizers
from edgevit.training.batch_plan import MicroBatch, micro_batches, steps_per_epoch
from edgevit.training.distributed import Processes
from edgevit.training.drop_path import StochasticDepth
from edgevit.training.loaders import Loader, Stopwatch
from edgevit.training.objective import Loss
from edgevit.training.pace import Pace
from edgevit.training.recipe import TrainRecipe


@dataclass(frozen=True, slots=True)
class Epoch:
    """Mean loss and accuracy on the training images as they were changed; seconds of wall time, and of waiting."""

    loss: float
    accuracy: float
    seconds: float
    waited: float


class Trainer:
    """Trains ``model`` step by step; ``average`` follows it, smoother and usually better."""

    def __init__(self, model: nn.Module, objective: Loss, recipe: TrainRecipe, processes: Processes) -> None:
        self.recipe = recipe
        self.processes = processes
        self.model = model.to(processes.device)
        self.objective = objective
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
        self.optimizer = optimizers.make_optimizer(self.model, recipe)
        # After the average was copied, which must not drop anything.
        self._depth = StochasticDepth(self.model, recipe)
        self._parallel = processes.parallel(self.model)
        self.bfloat16 = recipe.autocast == "bfloat16"
        self.epoch = 0
        self.pace = Pace(recipe, processes)
        self.learning_rate = 0.0

    def state(self) -> dict[str, Any]:
        """Return all that decides how training goes on."""
        return {
            "epoch": self.epoch,
            "seconds": self.pace.seconds,
            "bfloat16": self.bfloat16,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        self.epoch = state["epoch"]
        self.pace.seconds = state.get("seconds", 0.0)  # a run of before it was counted has none
        self.bfloat16 = state["bfloat16"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def averaged_weights(self) -> dict[str, Tensor]:
        """Return a copy of the averaged weights, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.average.module.state_dict().items()}

    def run_epoch(self, loader: Loader, progress: Progress) -> Epoch:
        """Pass once over the images, or over as many as there is time for.

        Raises:
            TrainingError: if the loss or the gradient is no longer a number.
        """
        self.pace.begin_epoch()
        examples = len(loader.labels)
        steps = steps_per_epoch(self.recipe, examples)
        plan = list(micro_batches(loader.labels, self.recipe, self.epoch, self.processes.rank, self.processes.count))
        watch = Stopwatch(loader.inputs(plan))
        self.model.train(self.recipe.mode == "full")
        sums = torch.zeros(2, dtype=torch.float64)  # of the losses, and of the images that were classified rightly
        seen = 0
        step_loss = torch.zeros(1, dtype=torch.float64)
        label = f"epoch {self.epoch + 1}" + ("" if self.pace.timed else f"/{self.recipe.epochs}")
        for micro_batch, inputs in zip(plan, progress.track(watch, total=len(plan), label=label), strict=True):
            loss, correct = self._backward(micro_batch, inputs, torch.from_numpy(loader.labels[micro_batch.indices]))
            sums += torch.tensor([loss, correct], dtype=torch.float64)
            step_loss += loss
            if micro_batch.last:
                self.learning_rate = self.pace.rate(self.epoch, micro_batch.step, steps)
                self._step(float(self.processes.total(step_loss)) / len(micro_batch.batch))
                step_loss.zero_()
                seen += len(micro_batch.batch)
                if self.pace.epoch_is_over():
                    break
        self.epoch += 1
        loss, correct = (self.processes.total(sums) / seen).tolist()
        return Epoch(loss, correct, self.pace.end_epoch(), watch.waited)

    def _backward(self, micro_batch: MicroBatch, inputs: Tensor, labels: Tensor) -> tuple[float, float]:
        """Add the gradient of ``micro_batch``; return the sum of its losses, and how many were right."""
        device = self.processes.device
        inputs, labels = inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        exchange = nullcontext() if micro_batch.last else self.processes.without_exchange(self._parallel)
        with exchange, self._depth.drawn(micro_batch, device):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
                loss, correct = self.objective(self._parallel, inputs, labels, micro_batch)
            # Processes take the mean of their gradients, where the loss of a batch is a mean over its images.
            (loss * self.processes.count / len(micro_batch.batch)).backward()
        return float(loss.detach()), correct

    def _step(self, loss: float) -> None:
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient became {norm}"
            kept = (
                "the weights of the last whole epoch are kept"
                if self.epoch
                else "no epoch was finished, so there are no weights to keep"
            )
            raise TrainingError(
                f"{what} in epoch {self.epoch + 1}",
                remedy=f"lower --learning-rate, or raise warmup_epochs in the recipe; {kept}",
            )
        optimizers.set_rate(self.optimizer, self.learning_rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model)
