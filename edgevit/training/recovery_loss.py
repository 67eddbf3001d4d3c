"""What a model with fewer tokens learns from: itself with all of them, on the same pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevit.models.vit import VisionTransformer
from edgevit.training.batch_plan import MicroBatch
from edgevit.training.mixing import Mixing
from edgevit.training.objective import Normalise, distillation
from edgevit.training.recipe import TrainRecipe

#: What a model gives: logits (B, classes); of an embedding model features (B, F) and tokens (B, N, D).
ModelOutput = Tensor | tuple[Tensor, Tensor]


class WholeModel(nn.Module):
    """The teacher: ``model`` with all tokens, which does not learn. It gives what a student is compared in."""

    def __init__(self, model: VisionTransformer, *, dense: bool) -> None:
        super().__init__()
        self.dense = dense
        self.model = model.requires_grad_(requires_grad=False).eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> ModelOutput:
        """Return logits, or features and all normalised tokens."""
        tokens = self.model.forward_features(images)
        given = self.model.forward_head(tokens)
        return (given, tokens) if self.dense else given


@dataclass(frozen=True, slots=True)
class RecoveryLoss:
    """How far a student is from ``teacher``.

    Of a classifier it is the divergence of its probabilities at the recipe's temperature, of one logit at a time where
    they are ``independent``; of a ``dense`` one the cosine and the squared distance, relative to the teacher's length,
    of its features and of its tokens.
    """

    recipe: TrainRecipe
    dense: bool
    independent: bool
    normalise: Normalise
    teacher: WholeModel

    @property
    def measure(self) -> str:
        """The share of images with the teacher's class, or of such decisions; the mean cosine of features."""
        return "cosine" if self.dense else "agreement"

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        micro_batch: MicroBatch,
    ) -> tuple[Tensor, float]:
        """Return the loss and the measure, each summed over the images, which have no labels."""
        pixels, _ = Mixing(self.recipe)(inputs.float(), labels[:, None].float(), micro_batch)
        images = self.normalise(pixels)
        wanted = self.teacher(images)
        found = model(images)
        return self.distance(found, wanted), self.likeness(found, wanted)

    def distance(self, found: ModelOutput, wanted: ModelOutput) -> Tensor:
        """Return the loss, summed over the images."""
        if isinstance(found, tuple) and isinstance(wanted, tuple):
            (features, tokens), (features_wanted, tokens_wanted) = found, wanted
            of_tokens = _apart(tokens.float(), tokens_wanted.float()).mean(dim=1)
            return (_apart(features.float(), features_wanted.float()) + of_tokens).sum()
        assert isinstance(found, Tensor)  # noqa: S101 - both are of the same kind
        assert isinstance(wanted, Tensor)  # noqa: S101
        if self.independent:
            found, wanted = (torch.stack([logits, -logits], dim=-1).flatten(0, 1) / 2 for logits in (found, wanted))
        return distillation(found.float(), wanted.float(), self.recipe.teacher_temperature)

    @torch.no_grad()
    def likeness(self, found: ModelOutput, wanted: ModelOutput) -> float:
        """Return the measure, summed over the images."""
        if isinstance(found, tuple) and isinstance(wanted, tuple):
            return float(functional.cosine_similarity(found[0].float(), wanted[0].float(), dim=1).sum())
        assert isinstance(found, Tensor)  # noqa: S101 - both are of the same kind
        assert isinstance(wanted, Tensor)  # noqa: S101
        if self.independent:
            return float(((found > 0) == (wanted > 0)).float().mean(dim=1).sum())
        return float((found.argmax(1) == wanted.argmax(1)).sum())


def _apart(found: Tensor, wanted: Tensor) -> Tensor:  # (..., D) -> (...)
    """Return 1 - cosine and the squared distance, relative to the square of the length of what is ``wanted``."""
    square = wanted.square().sum(dim=-1)
    distance = (found - wanted).square().sum(dim=-1) / square.clamp(min=torch.finfo(torch.float32).tiny)
    return 1 - functional.cosine_similarity(found, wanted, dim=-1) + distance
