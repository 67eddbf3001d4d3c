"""Which images a step sees, and where its random numbers come from.

All that is random follows from the seed, the epoch, the step and the place in the batch: never from a process, a worker
or what ran before. So a resumed run goes on as if nothing had happened, and several processes do what one would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgevit.errors import InputError
from edgevit.training.recipe import TrainRecipe


class Purpose(IntEnum):
    """What random numbers are for; each purpose has its own."""

    AUGMENT = 1
    MIX = 2
    DEPTH = 3
    IMAGE = 4


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The part of a batch that one process works on at once: the places ``start`` to ``stop`` of ``batch``.

    ``batch`` (B,) holds the indices of all images of the step, on all processes. The step ends with its ``last`` one.
    """

    epoch: int
    step: int
    batch: NDArray[np.int64]
    start: int
    stop: int
    last: bool

    @property
    def indices(self) -> NDArray[np.int64]:
        """The images of this micro-batch."""
        return self.batch[self.start : self.stop]

    @property
    def places(self) -> slice:
        """Where this micro-batch lies in the batch."""
        return slice(self.start, self.stop)

    def random(self, recipe: TrainRecipe, purpose: Purpose) -> np.random.Generator:
        """Return the random numbers of the whole step for ``purpose``: the same for all of its micro-batches."""
        return np.random.default_rng([recipe.seed, self.epoch, self.step, purpose])


def batch_size(recipe: TrainRecipe, examples: int) -> int:
    """Return how many images a step sees: no more than there are."""
    return min(recipe.batch_size, examples)


def steps_per_epoch(recipe: TrainRecipe, examples: int) -> int:
    """Return how many steps an epoch has; images that do not fill a batch wait for another epoch."""
    return max(1, examples // recipe.batch_size)


def order(labels: NDArray[np.int64], recipe: TrainRecipe, epoch: int) -> NDArray[np.int64]:
    """Return the images (N,) in the order that ``epoch`` sees them; balanced, classes come up equally often."""
    random = np.random.default_rng([recipe.seed, epoch])
    if recipe.sampling == "shuffled":
        return random.permutation(len(labels)).astype(np.int64)
    weights = 1 / np.bincount(labels)[labels]
    return random.choice(len(labels), size=len(labels), p=weights / weights.sum()).astype(np.int64)


def micro_batches(
    labels: NDArray[np.int64], recipe: TrainRecipe, epoch: int, rank: int, processes: int
) -> Iterator[MicroBatch]:
    """Yield what process ``rank`` of ``processes`` does in ``epoch``, step by step.

    Raises:
        InputError: if the batch cannot be cut into that many micro-batches.
    """
    size = batch_size(recipe, len(labels))
    edges = _edges(size, processes * recipe.accumulate, recipe)
    own = edges[rank * recipe.accumulate : (rank + 1) * recipe.accumulate + 1]
    images = order(labels, recipe, epoch)
    for step in range(steps_per_epoch(recipe, len(labels))):
        batch = images[step * size : (step + 1) * size]
        for number, (start, stop) in enumerate(pairwise(own), start=1):
            yield MicroBatch(epoch, step, batch, start, stop, last=number == recipe.accumulate)


def _edges(size: int, parts: int, recipe: TrainRecipe) -> list[int]:
    # Mixed images come in pairs, which lie side by side and must not be parted.
    grain = 2 if recipe.mixes else 1
    if size < parts * grain:
        raise InputError(
            f"a batch of {size} images cannot be cut into {parts} parts"
            + (" of at least a pair to mix" if recipe.mixes else ""),
            remedy=f"use a batch size of {parts * grain} or more, or fewer processes or accumulate parts",
        )
    inner = [part * size // (parts * grain) * grain for part in range(1, parts)]
    return [0, *inner, size]
