"""A classifier made of the names of its classes: their text embeddings are its weights (Radford et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from edgevit.errors import CheckpointError, DataError, InputError
from edgevit.models.checkpoints import Checkpoint
from edgevit.models.families.base import Raw
from edgevit.models.probabilities import check_activation
from edgevit.models.spec import OutputActivation
from edgevit.models.text_tower import TextTower, text_tower
from edgevit.models.tokenizer import Tokenizer, cleaned, read_tokenizer
from edgevit.progress import SILENT, Progress

DEFAULT_TEMPLATE = "a photo of a {}"

_AT_ONCE = 32  # prompts
_PLACE = "{}"


@dataclass(frozen=True, slots=True)
class Prompts:
    """Names of classes, and the sentences in which each is put at ``{}``; of several the mean embedding is taken.

    Raises:
        DataError: if there are no names, or one is there twice.
        InputError: if a sentence has no place for the name, or more than one.

    """

    labels: tuple[str, ...]
    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        twice = next((label for label in self.labels if self.labels.count(label) > 1), None)
        if not self.labels or twice is not None:
            what = f"the label '{twice}' is there twice" if self.labels else "there are no labels"
            raise DataError(what, remedy="give --labels a file with one name of a class a line")
        for template in self.templates:
            if template.count(_PLACE) != 1:
                raise InputError(
                    f"the template '{template}' has {template.count(_PLACE)} places for the label",
                    remedy=f"write {_PLACE} where the label goes: --template '{DEFAULT_TEMPLATE}'",
                )

    def sentences(self) -> list[str]:
        """Return all prompts: each template of the first label, then of the next."""
        return [template.replace(_PLACE, label) for label in self.labels for template in self.templates]


def zero_shot(
    checkpoint: Checkpoint, raw: Raw, folder: Path, prompts: Prompts, activation: OutputActivation | None
) -> Checkpoint:
    """Return an image tower as a classifier of what ``prompts`` name: logits are cosines, scaled as in training.

    ``raw`` are all tensors of the file, ``folder`` has its tokenizer. ``activation`` makes probabilities of the logits
    in the place of the model's own: softmax for CLIP, sigmoid for SigLIP.

    Raises:
        CheckpointError: if there is no text tower that fits, no tokenizer, or no scale.
        InputError: if there is one label, which needs an activation that decides on it alone.

    """
    if checkpoint.spec.classes:
        raise CheckpointError(
            f"{raw.name} is a classifier of {checkpoint.spec.classes} classes, whose labels are read beside it",
            remedy="leave out --labels; to choose classes by their names, give a CLIP or SigLIP with its text tower",
        )
    tower, tokenizer = text_tower(raw), read_tokenizer(folder, raw.name)
    if tower.spec.embedding != checkpoint.spec.outputs:
        raise CheckpointError(
            f"the text tower of {raw.name} gives {tower.spec.embedding} features, the image tower "
            f"{checkpoint.spec.outputs}",
            remedy="use the weights of the whole model",
        )
    chosen: OutputActivation = activation or ("sigmoid" if "logit_bias" in raw.weights else "softmax")
    check_activation(len(prompts.labels), chosen, raw.name)
    vectors = _embedded(tower, tokenizer, prompts)
    weight, bias = _scaled(vectors, raw)
    shape = "several templates each" if len(prompts.templates) > 1 else f"'{prompts.templates[0]}'"
    notes = tuple(note for note in checkpoint.notes if not note.endswith("the text tower"))
    return replace(
        checkpoint,
        spec=msgspec.structs.replace(checkpoint.spec, classes=len(prompts.labels), l2_normalize=True),
        weights={**checkpoint.weights, "classifier.weight": weight, "classifier.bias": bias},
        labels=prompts.labels,
        activation=chosen,
        notes=(*notes, f"its text tower made a classifier of {len(prompts.labels)} labels, by {shape}; it is left out"),
    )


def _embedded(tower: TextTower, tokenizer: Tokenizer, prompts: Prompts) -> Tensor:  # (classes, E)
    """Return one vector of length 1 for each label."""
    texts, spec = prompts.sentences(), tower.spec
    if not spec.causal:
        texts = [cleaned(text, spec.cleaning or tokenizer.cleaning) for text in texts]
    numbers = tokenizer.encode(texts, spec.length, fill=not spec.causal)
    if max(max(each, default=spec.vocabulary) for each in numbers) >= spec.vocabulary:
        raise CheckpointError(
            f"the tokenizer has more tokens than the text tower, {spec.vocabulary}",
            remedy="put the tokenizer.json of the same model beside the weights",
        )
    starts = range(0, len(numbers), _AT_ONCE)
    found = []
    with torch.inference_mode():
        for start in prompts.progress.track(starts, total=len(starts), label="Embedding labels"):
            batch = numbers[start : start + _AT_ONCE]
            longest = max(map(len, batch))  # what follows a prompt's end, it does not see
            filled = torch.tensor([each + [0] * (longest - len(each)) for each in batch])
            found.append(functional.normalize(tower(filled), dim=-1))
        each = torch.cat(found).reshape(len(prompts.labels), len(prompts.templates), -1)
        return functional.normalize(each.mean(dim=1), dim=-1)


def _scaled(vectors: Tensor, raw: Raw) -> tuple[Tensor, Tensor]:
    scale, bias = raw.weights.get("logit_scale"), raw.weights.get("logit_bias")
    if scale is None or scale.numel() != 1:
        raise CheckpointError(
            f"{raw.name} does not say by what cosines are multiplied: it has no logit_scale",
            remedy="use the weights of the whole model",
        )
    offset = 0.0 if bias is None else float(bias.reshape(()))
    return (vectors * scale.reshape(()).exp()).clone(), torch.full((len(vectors),), offset)
