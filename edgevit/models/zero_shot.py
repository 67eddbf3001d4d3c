"""A classifier made of the names of its classes: their text embeddings are its weights (Radford et al. 2021)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
from edgevit.models.spec import OutputActivation, label_counts, outcomes
from edgevit.models.text_spec import TextSpec
from edgevit.models.text_tower import TextTower, text_tower
from edgevit.models.tokenizer import FILE, Encoded, Tokenizer, clean_text, read_tokenizer
from edgevit.progress import SILENT, Progress

DEFAULT_TEMPLATE = "a photo of a {}"

_AT_ONCE = 32  # prompts
_PLACE = "{}"
_ONE_A_LINE = "give --labels a file with one name of a class a line"
_OWN = f"put the {FILE} of the same model beside the weights"


@dataclass(frozen=True, slots=True)
class Prompts:
    """Names of classes, and the sentences in which each is put at ``{}``; of several the mean embedding is taken.

    Raises:
        DataError: if there are no names.
        InputError: if a sentence has no place for the name, or more than one.

    """

    labels: tuple[str, ...]
    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        if not self.labels:
            raise DataError("there are no labels", remedy=_ONE_A_LINE)
        for template in self.templates:
            if template.count(_PLACE) != 1:
                raise InputError(
                    f"the template '{template}' has {template.count(_PLACE)} places for the label",
                    remedy=f"write {_PLACE} where the label goes: --template '{DEFAULT_TEMPLATE}'",
                )

    def sentences(self) -> list[str]:
        """Return all prompts: each template of the first label, then of the next."""
        return [template.replace(_PLACE, label) for label in self.labels for template in self.templates]


def labels_of_classes(prompts: Prompts, classes: int, source: str) -> tuple[str, ...]:
    """Return the names that ``prompts`` give to the ``classes`` that a model has already.

    Raises:
        CheckpointError: if there are more or fewer names.
        InputError: if there are sentences, which such a model does not read.

    """
    if len(prompts.labels) not in label_counts(classes):
        raise CheckpointError(
            f"there are {len(prompts.labels)} labels, and {source} is a classifier of {classes} classes",
            remedy="give --labels one name for each class; to choose classes by their names, "
            "give a CLIP or SigLIP with its text tower",
        )
    if prompts.templates != (DEFAULT_TEMPLATE,):
        raise InputError(
            f"--template goes with a text tower, and {source} is a classifier already", remedy="leave it out"
        )
    return outcomes(prompts.labels, classes)


def zero_shot(
    checkpoint: Checkpoint, raw: Raw, folder: Path, prompts: Prompts, activation: OutputActivation | None
) -> Checkpoint:
    """Return an image tower as a classifier of what ``prompts`` name: logits are cosines, scaled as in training.

    ``raw`` are all tensors of the file, ``folder`` has its tokenizer. ``activation`` makes probabilities of the logits
    in the place of the model's own: softmax for CLIP, sigmoid for SigLIP.

    Raises:
        CheckpointError: if there is no text tower that fits, no tokenizer, or no scale.
        DataError: if a label is there twice, or two are the same to the tokenizer.
        InputError: if there is one label, which needs an activation that decides on it alone.

    """
    twice = next((label for label, count in Counter(prompts.labels).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"the label '{twice}' is there twice", remedy=_ONE_A_LINE)
    tower, tokenizer = text_tower(raw), read_tokenizer(folder, raw.name)
    if tower.spec.embedding != checkpoint.spec.outputs:
        raise CheckpointError(
            f"the text tower of {raw.name} gives {tower.spec.embedding} features, the image tower "
            f"{checkpoint.spec.outputs}",
            remedy="use the weights of the whole model",
        )
    chosen: OutputActivation = activation or ("sigmoid" if "logit_bias" in raw.weights else "softmax")
    check_activation(len(prompts.labels), chosen, raw.name)
    encoded = _encoded(tower.spec, tokenizer, prompts)
    vectors = _embedded(tower, encoded.numbers, prompts)
    weight, bias = _scaled(vectors, raw)
    shape = "several templates each" if len(prompts.templates) > 1 else f"'{prompts.templates[0]}'"
    notes = tuple(note for note in checkpoint.notes if not note.endswith("the text tower"))
    return replace(
        checkpoint,
        spec=msgspec.structs.replace(checkpoint.spec, classes=len(prompts.labels), l2_normalize=True),
        weights={**checkpoint.weights, "classifier.weight": weight, "classifier.bias": bias},
        labels=prompts.labels,
        activation=chosen,
        notes=(
            *notes,
            *_cut(encoded, prompts, tower.spec),
            *_strange(tokenizer, tower.spec, prompts),
            f"its text tower made a classifier of {len(prompts.labels)} labels, by {shape}; it is left out",
        ),
    )


def _embedded(tower: TextTower, numbers: Sequence[list[int]], prompts: Prompts) -> Tensor:  # (classes, E)
    """Return one vector of length 1 for each label."""
    starts = range(0, len(numbers), _AT_ONCE)
    found = []
    with torch.inference_mode():
        for start in prompts.progress.track(starts, total=len(starts), label="Embedding labels"):
            batch = numbers[start : start + _AT_ONCE]
            longest = max(map(len, batch))  # what follows a prompt's end, it does not see
            filled = torch.tensor([each + [0] * (longest - len(each)) for each in batch])
            found.append(functional.normalize(tower(filled), dim=-1))
        each = torch.cat(found).reshape(len(prompts.labels), len(prompts.templates), -1)
        vectors = functional.normalize(each.mean(dim=1), dim=-1)
    if not vectors.isfinite().all():
        raise CheckpointError("the text tower gives values that are not finite", remedy="download the weights again")
    return vectors


def _encoded(spec: TextSpec, tokenizer: Tokenizer, prompts: Prompts) -> Encoded:
    """Return the tokens of all prompts, and see that the text tower can read them.

    Raises:
        CheckpointError: if the tokenizer is not that of the text tower.
        DataError: if two labels are the same to it.
    """
    texts = prompts.sentences()
    cleaning = _cleaning(tokenizer, spec)
    if cleaning is not None:
        texts = [clean_text(text, cleaning) for text in texts]
    found = tokenizer.encode(texts, spec.length, fill=not spec.causal)
    if max(map(max, found.numbers)) >= spec.vocabulary:
        raise CheckpointError(f"the tokenizer has more tokens than the text tower, {spec.vocabulary}", remedy=_OWN)
    if spec.causal and (lost := _without_end(spec, found.numbers)) is not None:
        raise CheckpointError(
            f"the tokenizer does not end '{texts[lost][:60]}' with the token that the text tower reads"
            + ("" if spec.end is None else f", {spec.end}"),
            remedy=_OWN,
        )
    several = len(prompts.templates)
    alike: dict[tuple[tuple[int, ...], ...], str] = {}
    for place, label in enumerate(prompts.labels):
        key = tuple(map(tuple, found.numbers[place * several : (place + 1) * several]))
        if (other := alike.setdefault(key, label)) != label:
            raise DataError(
                f"the labels '{other[:60]}' and '{label[:60]}' are the same tokens to the text tower",
                remedy="leave one out" + (", or give shorter ones, or a shorter --template" if found.cut else ""),
            )
    return found


def _without_end(spec: TextSpec, numbers: Sequence[list[int]]) -> int | None:
    """Return the first of the prompts that lack the token at which a causal tower reads their vector."""
    last = numbers[0][-1]  # is the largest, where nothing says which
    ended = (spec.end in each if spec.end is not None else each[-1] == last == max(each) for each in numbers)
    return next((place for place, ends in enumerate(ended) if not ends), None)


def _cut(encoded: Encoded, prompts: Prompts, spec: TextSpec) -> tuple[str, ...]:
    if not encoded.cut:
        return ()
    first = prompts.labels[encoded.cut[0] // len(prompts.templates)]
    return (
        f"the text tower reads {spec.length} tokens: {len(encoded.cut)} prompts are cut, that of '{first[:60]}' too",
    )


def _strange(tokenizer: Tokenizer, spec: TextSpec, prompts: Prompts) -> tuple[str, ...]:
    cleaning = _cleaning(tokenizer, spec)
    labels = prompts.labels if cleaning is None else [clean_text(label, cleaning) for label in prompts.labels]
    found = tokenizer.strange(labels)
    if not found:
        return ()
    return (f"the tokenizer does not know all of {len(found)} labels, such as '{prompts.labels[found[0]][:60]}'",)


def _cleaning(tokenizer: Tokenizer, spec: TextSpec) -> str | None:
    """Return what is done to a text first; None where the tokenizer does all."""
    return spec.cleaning or (None if spec.causal else tokenizer.cleaning)


def _scaled(vectors: Tensor, raw: Raw) -> tuple[Tensor, Tensor]:
    scale, bias = raw.weights.get("logit_scale"), raw.weights.get("logit_bias")
    if scale is None or scale.numel() != 1:
        raise CheckpointError(
            f"{raw.name} does not say by what cosines are multiplied: it has no logit_scale",
            remedy="use the weights of the whole model",
        )
    if (raw.said.get("model_type") == "siglip" and bias is None) or (bias is not None and bias.numel() != 1):
        raise CheckpointError(
            f"{raw.name} is a SigLIP and has no logit_bias of one number", remedy="use the weights of the whole model"
        )
    factor = scale.reshape(()).float().exp()
    offset = torch.zeros(()) if bias is None else bias.reshape(()).float()
    if not (factor.isfinite() and offset.isfinite()):
        raise CheckpointError(
            f"logit_scale or logit_bias of {raw.name} is not a finite number", remedy="download the weights again"
        )
    return (vectors * factor).clone(), offset.repeat(len(vectors))
