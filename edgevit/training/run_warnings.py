"""What a user should know before a run begins: colours that are lost, images that are left out, steps that are few."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgevit.data.dataset import Dataset
from edgevit.models.spec import PRESETS, preset
from edgevit.training.batch_plan import batch_size, steps_per_epoch
from edgevit.training.recipe import TrainRecipe

_LEFT_OUT = 10  # an epoch may leave out one in so many images without a word
_FEW_STEPS = 100
_LOOKED_AT = 4  # images; a set is in colour, or it is not


def run_warnings(recipe: TrainRecipe, training: Dataset, model: str | None) -> Iterator[str]:
    """Yield what to tell of a run on ``training``; ``model`` is the preset to start from random weights, if one is.

    Raises:
        ImageError: if an image cannot be read.
    """
    if model is not None:
        yield from _lost_colour(training, model)
    examples = len(training)
    size, steps = batch_size(recipe, examples), steps_per_epoch(recipe, examples)
    left = examples - size * steps
    if left * _LEFT_OUT > examples:
        yield (
            f"each epoch leaves out {left} of {examples} images, others each time, that fill no batch of {size}: "
            "a smaller --batch-size leaves out fewer"
        )
    if not recipe.minutes and (total := steps * recipe.epochs) < _FEW_STEPS:
        yield (
            f"the run has {total} step{'s' * (total > 1)} in all, {steps} an epoch of {size} images each: "
            "a smaller --batch-size or more --epochs gives more"
        )


def _lost_colour(training: Dataset, model: str) -> Iterator[str]:
    spec = preset(model)
    if spec.channels > 1 or not any(_is_colour(training, index) for index in range(min(_LOOKED_AT, len(training)))):
        return
    name, other = next((name, spec) for name, spec in PRESETS.items() if spec.channels > 1)
    yield (
        f"{model} takes {_sides(spec.image_size)} grey images, and these are in colour: fine-tune a checkpoint "
        f"(--from), or train {name}, which takes {_sides(other.image_size)} in colour (--model {name})"
    )


def _is_colour(dataset: Dataset, index: int) -> bool:
    """Return whether an image has any colour; grey ones may be stored as RGB."""
    return bool(np.ptp(np.asarray(dataset.image(index).convert("RGB")), axis=-1).any())


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
