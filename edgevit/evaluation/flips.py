"""The images that float32 and a variant answer otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevit.evaluation.accuracy_details import MOST_FLIPS, FlippedImage
from edgevit.evaluation.class_changes import short
from edgevit.statistics import as_classes, finite_rows


class Flips(NamedTuple):
    """How many images flipped in all, and of the ``images`` that are kept, the ``places`` (0..N-1)."""

    total: int
    images: tuple[FlippedImage, ...]
    places: tuple[int, ...]


def margins(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return, for each image, how far its two largest probabilities (N, classes) are apart; 0 where one is not finite.

    ``logits`` (N, classes) are of at least two classes.
    """
    finite = finite_rows(logits)
    numbers = np.where(finite[:, None], logits, 0).astype(np.float64)
    raised = np.exp(numbers - numbers.max(axis=1, keepdims=True))
    two = np.partition(raised / raised.sum(axis=1, keepdims=True), -2, axis=1)[:, -2:]
    found: NDArray[np.float64] = np.where(finite, two[:, 1] - two[:, 0], 0.0)
    return found


def flipped_images(
    reference: NDArray[np.float32],
    logits: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    names: Sequence[str],
    describe: Callable[[int], str],
) -> Flips:
    """Return the images whose answer changed, those first that float32 was surest of; at most ``MOST_FLIPS`` are kept.

    Logits are (N, classes) of the same images; a single one decides between two ``names``. ``labels`` (N,) are None
    where there are none. ``describe`` says what to call image 0..N-1.
    """
    reference, logits = as_classes(reference), as_classes(logits)
    before, after = reference.argmax(axis=1), logits.argmax(axis=1)
    sure, still = margins(reference), margins(logits)
    flipped = np.flatnonzero(before != after)
    places = flipped[np.argsort(-sure[flipped], kind="stable")][:MOST_FLIPS].tolist()
    images = tuple(
        FlippedImage(
            image=short(describe(place)),
            label=None if labels is None else short(names[int(labels[place])]),
            float32=short(names[int(before[place])]),
            variant=short(names[int(after[place])]),
            float32_margin=float(sure[place]),
            variant_margin=float(still[place]),
        )
        for place in places
    )
    return Flips(len(flipped), images, tuple(places))


def flipped_decisions(
    reference: NDArray[np.float32],
    logits: NDArray[np.float32],
    truth: NDArray[np.int64] | None,
    names: Sequence[str],
    describe: Callable[[int], str],
) -> Flips:
    """Return the images of which a decision changed, where each of several logits (N, labels) is one.

    Of each image the decision is named that float32 was surest of; ``truth`` (N, labels) are 0 and 1. A margin is the
    distance between the probabilities of yes and no.
    """
    changed = (reference > 0) != (logits > 0)
    sure, still = (np.abs(np.tanh(np.nan_to_num(each.astype(np.float64)) / 2)) for each in (reference, logits))
    surest = np.where(changed, sure, -1.0)
    which, most = surest.argmax(axis=1), surest.max(axis=1)
    flipped = np.flatnonzero(changed.any(axis=1))
    places = flipped[np.argsort(-most[flipped], kind="stable")][:MOST_FLIPS].tolist()

    def said(name: str, *, yes: bool) -> str:
        return short(name if yes else f"not {name}")

    images = []
    for place in places:
        label = int(which[place])
        name = names[label]
        images.append(
            FlippedImage(
                image=short(describe(place)),
                label=None if truth is None else said(name, yes=bool(truth[place, label] > 0)),
                float32=said(name, yes=bool(reference[place, label] > 0)),
                variant=said(name, yes=bool(logits[place, label] > 0)),
                float32_margin=float(sure[place, label]),
                variant_margin=float(still[place, label]),
            )
        )
    return Flips(len(flipped), tuple(images), tuple(places))
