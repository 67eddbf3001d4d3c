"""What training makes small: cross-entropy with the labels, and with what a teacher says of the same pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevit.data.preprocess import Preprocess
from edgevit.errors import InputError
from edgevit.models.checkpoints import Checkpoint
from edgevit.training.mixing import Mixing
from edgevit.training.plan import Piece
from edgevit.training.recipe import Recipe


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
    """A trained model and its own normalisation; gives logits (B, classes) in the student's order of classes.

    Raises:
        InputError: if its classes or its kind of images are not the student's.
    """

    order: Tensor

    def __init__(self, checkpoint: Checkpoint, labels: tuple[str, ...], preprocess: Preprocess) -> None:
        super().__init__()
        theirs = checkpoint.preprocess
        if (theirs.size, theirs.channel_order) != (preprocess.size, preprocess.channel_order):
            raise InputError(
                f"the teacher {checkpoint.source} sees {theirs.channel_order} images of {theirs.size}, "
                f"the student {preprocess.channel_order} images of {preprocess.size}",
                remedy="use a teacher for the same image size and channels",
            )
        if sorted(checkpoint.labels) != sorted(labels):
            raise InputError(
                f"the teacher {checkpoint.source} knows other classes than the images have",
                remedy="fine-tune the teacher on the same images first, and give its RUN folder",
            )
        self.normalise = Normalise(theirs)
        self.model = checkpoint.model().requires_grad_(requires_grad=False)
        self.register_buffer("order", torch.tensor([checkpoint.labels.index(label) for label in labels]))

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits for pixels (B, C, H, W), 0..255."""
        return self.model(self.normalise(pixels)).float()[:, self.order]


@dataclass(frozen=True, slots=True)
class Objective:
    """From pixels and labels to a loss; ``normalise`` makes the model's input of pixels."""

    recipe: Recipe
    classes: int
    normalise: nn.Module
    teacher: Teacher | None = None

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor, piece: Piece) -> tuple[Tensor, int]:
        """Return the loss, summed over the images of ``piece``, and how many were classified as labelled."""
        pixels = inputs.float()
        targets = functional.one_hot(labels, self.classes).float()
        pixels, targets = Mixing(self.recipe)(pixels, targets, piece)
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
