"""The loss: cross-entropy with the labels, and the divergence from a teacher on the same pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevit.data.labels import match_labels
from edgevit.data.preprocess import ChannelOrder, Preprocess
from edgevit.errors import InputError
from edgevit.models.checkpoints import Checkpoint
from edgevit.training.batch_plan import MicroBatch
from edgevit.training.heads import one_right
from edgevit.training.mixing import Mixing
from edgevit.training.recipe import TrainRecipe

_LUMA = (0.299, 0.587, 0.114)  # of ITU-R 601-2, as in Pillow's conversion to grey


class Normalise(nn.Module):
    """``Preprocess.normalize`` on the device that trains: pixels (B, C, H, W), 0..255, to a model's input."""

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", mean / std)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the model's input."""
        return pixels * self.scale - self.shift


class Teacher(nn.Module):
    """A trained model of any image size; gives logits (B, classes) in the student's order of classes.

    It sees the student's pixels, scaled to its own size and channels, under its own normalisation. Of the classes that
    it knows beyond the student's it says nothing.

    Raises:
        InputError: if it does not know each of the student's classes, or does not choose between them.
    """

    order: Tensor

    def __init__(self, checkpoint: Checkpoint, labels: tuple[str, ...], preprocess: Preprocess) -> None:
        super().__init__()
        if checkpoint.activation == "sigmoid" and checkpoint.spec.classes > 1:
            raise InputError(
                f"the teacher {checkpoint.source} decides on each label by itself, and does not choose between classes",
                remedy="give a teacher that was trained with one label for each image",
            )
        checkpoint = one_right(checkpoint)
        order = match_labels(labels, checkpoint.labels)
        unknown = [label for label, match in zip(labels, order, strict=True) if match is None]
        if unknown:
            raise InputError(
                f"the teacher {checkpoint.source} does not know the class '{unknown[0]}'"
                + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""),
                remedy="fine-tune the teacher on the same images first, and give its RUN folder",
            )
        self.size = checkpoint.preprocess.size
        self.channel_orders = preprocess.channel_order, checkpoint.preprocess.channel_order
        self.normalise = Normalise(checkpoint.preprocess)
        self.model = checkpoint.model().requires_grad_(requires_grad=False)
        self.register_buffer("order", torch.tensor(order))

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits for pixels (B, C, H, W), 0..255."""
        seen = as_channels(pixels, *self.channel_orders)
        if seen.shape[-2:] != self.size:
            seen = functional.interpolate(seen, self.size, mode="bilinear", antialias=True)
        return self.model(self.normalise(seen)).float()[:, self.order]


def as_channels(pixels: Tensor, theirs: ChannelOrder, ours: ChannelOrder) -> Tensor:
    """Return ``pixels`` (B, C, H, W) of the order ``theirs`` in the order ``ours``; grey is Pillow's luma."""
    if theirs == ours:
        return pixels
    if theirs == "L":
        return pixels.expand(-1, 3, -1, -1)
    if ours == "L":
        luma = pixels.new_tensor(_LUMA if theirs == "RGB" else _LUMA[::-1])
        return (pixels * luma[:, None, None]).sum(dim=1, keepdim=True)
    return pixels.flip(1)


class Loss(Protocol):
    """From what a loader gives and labels to a loss, and something else that is counted beside it."""

    @property
    def measure(self) -> str:
        """What is counted, such as accuracy."""
        ...

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, micro_batch: MicroBatch
    ) -> tuple[Tensor, float]:
        """Return the loss, and the measure, each summed over the images of ``micro_batch``."""
        ...


@dataclass(frozen=True, slots=True)
class Objective:
    """From pixels and labels to a loss; ``normalise`` makes the model's input of pixels."""

    recipe: TrainRecipe
    classes: int
    normalise: nn.Module
    teacher: Teacher | None = None
    measure: str = "accuracy"

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, micro_batch: MicroBatch
    ) -> tuple[Tensor, float]:
        """Return the loss, summed over the images of ``micro_batch``, and how many were classified as labelled."""
        pixels = inputs.float()
        targets = functional.one_hot(labels, self.classes).float()
        pixels, targets = Mixing(self.recipe)(pixels, targets, micro_batch)
        logits = model(self.normalise(pixels)).float()
        loss = functional.cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing, reduction="sum")
        if self.teacher is not None:
            share = self.recipe.teacher_weight
            loss = (1 - share) * loss + share * distillation(
                logits, self.teacher(pixels), self.recipe.teacher_temperature
            )
        return loss, int((logits.argmax(1) == targets.argmax(1)).sum())


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student) at temperature T, summed over the images (Hinton et al. 2015)."""
    student = (logits / temperature).log_softmax(dim=1)
    wanted = (teacher / temperature).log_softmax(dim=1)
    return temperature**2 * functional.kl_div(student, wanted, reduction="sum", log_target=True)
