"""A Vision Transformer that gives its patch tokens, or what its blocks give, beside or in place of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from edgevit.data.preprocess import Preprocess
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.origin import WeightsOrigin
from edgevit.models.outputs import Output
from edgevit.models.requested import Requests, outputs_of
from edgevit.models.spec import ModelSpec, OutputActivation, outcomes
from edgevit.models.vit import VisionTransformer


class DenseVisionTransformer(VisionTransformer):
    """A ViT whose ``forward`` gives ``outputs``, in their order.

    Tokens (B, N, D) and features (B, D, H, W) are of patches alone, without the class token and registers, and have
    gone through the model's last norm, as in DINOv2's ``x_norm_patchtokens`` and ``get_intermediate_layers`` with
    ``norm=True``. Where that works on the pooled vector, they have not.
    """

    def __init__(self, model: VisionTransformer, outputs: Sequence[Output]) -> None:
        with torch.device("meta"):
            super().__init__(model.spec)
        self.load_state_dict(model.state_dict(), assign=True)
        self.outputs = tuple(outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Return the outputs, each (B, *shape)."""
        last = self.spec.depth - 1
        numbers = {last if output.block is None else output.block for output in self.outputs}
        tokens = {number: self.norm(given) for number, given in self.forward_blocks(images, numbers).items()}
        blocks = [last if output.block is None else output.block for output in self.outputs]
        return tuple(self._given(output, tokens[block]) for output, block in zip(self.outputs, blocks, strict=True))

    def _given(self, output: Output, tokens: Tensor) -> Tensor:  # (B, N, D) -> (B, *output.shape)
        patches = tokens[:, self.spec.prefix_tokens :]
        if output.kind == "tokens":
            return patches
        if output.kind == "features":
            return patches.transpose(1, 2).reshape(-1, *output.shape)
        vector: Tensor = self.pre_logits(self.fc_norm(self.pool(tokens)))
        if output.kind == "logits" or self.spec.projection:
            vector = self.head(vector)
        if not self.spec.l2_normalize:
            return vector
        vector = functional.normalize(vector, dim=-1)
        return self.classifier(vector) if output.kind == "logits" else vector


@dataclass(frozen=True, slots=True)
class DenseCheckpoint:
    """A checkpoint of which other outputs are wanted than its logits or features."""

    checkpoint: Checkpoint
    outputs: tuple[Output, ...]

    @classmethod
    def of(cls, checkpoint: Checkpoint, requests: Requests) -> DenseCheckpoint:
        """Return ``checkpoint`` with the outputs that are asked for; its labels are those of its logits.

        Raises:
            InputError: if its model has no such output.
        """
        outputs = outputs_of(checkpoint.spec, requests)
        said = {"labels": outcomes(checkpoint.labels, checkpoint.spec.classes), "activation": checkpoint.activation}
        return cls(
            checkpoint,
            tuple(msgspec.structs.replace(each, **said) if each.is_row_of_logits else each for each in outputs),
        )

    @property
    def spec(self) -> ModelSpec:
        """The architecture, with its head, whether that is used or not."""
        return self.checkpoint.spec

    @property
    def preprocess(self) -> Preprocess:
        """How images are prepared."""
        return self.checkpoint.preprocess

    @property
    def labels(self) -> tuple[str, ...]:
        """None: what the model gives are no classes alone. Its logits have them, as an output."""
        return ()

    @property
    def activation(self) -> OutputActivation:
        """The one that goes unsaid."""
        return "softmax"

    @property
    def source(self) -> str:
        """Where it came from."""
        return self.checkpoint.source

    @property
    def origin(self) -> WeightsOrigin:
        """The files, and the license that is named beside them."""
        return self.checkpoint.origin

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, and what it gives."""
        given = tuple(f"output {output.in_words()}" for output in self.outputs)
        return (*self.checkpoint.notes, *given)

    def model(self) -> DenseVisionTransformer:
        """Return the model with these weights, in evaluation mode.

        Raises:
            CheckpointError: if tensors are missing, left over, misshapen or not numbers.
        """
        model = DenseVisionTransformer(self.checkpoint.model(), self.outputs)
        model.eval()
        return model

    def sha256(self) -> str:
        """Return the SHA-256 of the weights' names, shapes and values."""
        return self.checkpoint.sha256()
