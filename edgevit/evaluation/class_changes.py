"""Which classes a variant answers otherwise for than float32, and which mistakes grew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevit.evaluation.accuracy_details import MOST_CLASSES, MOST_LETTERS, MOST_SHIFTS, ClassChange, ConfusionShift
from edgevit.evaluation.evidence import drop_interval
from edgevit.statistics import mcnemar_p

#: Of a class with fewer images nothing is said but the counts.
LEAST_IMAGES = 25
_LEVEL = 0.05


class ClassChanges(NamedTuple):
    """The ``classes`` that lost or gained an image, of ``measured`` with images; ``judged`` have enough of these."""

    classes: tuple[ClassChange, ...]
    measured: int
    judged: int


def class_changes(
    before: NDArray[np.bool_], after: NDArray[np.bool_], labels: NDArray[np.int64], names: Sequence[str]
) -> ClassChanges:
    """Return which classes changed, of images (N,) with ``labels`` that float32 was right on ``before``.

    ``after`` says the same of a variant. The first are those that changed beyond chance, then those that lost most;
    no more than ``MOST_CLASSES``.
    """
    shape = (len(names),)
    images, right, kept, lost, gained = (
        np.bincount(labels[chosen], minlength=shape[0])
        for chosen in (np.ones_like(before), before, after, before & ~after, after & ~before)
    )
    judged = np.flatnonzero(images >= LEAST_IMAGES)
    p = {place: mcnemar_p(int(lost[place]), int(gained[place])) for place in np.flatnonzero(lost + gained).tolist()}
    changed = _holm({place: p.get(place, 1.0) for place in judged.tolist()})
    order = sorted(p, key=lambda place: (place not in changed, int(gained[place] - lost[place]), place))
    classes = []
    for place in order[:MOST_CLASSES]:
        low, high = drop_interval(int(lost[place]), int(gained[place]), int(images[place]))
        classes.append(
            ClassChange(
                label=short(names[place]),
                images=int(images[place]),
                float32=int(right[place]),
                variant=int(kept[place]),
                lost=int(lost[place]),
                gained=int(gained[place]),
                interval=(-high, -low),
                p=p[place],
                changed=place in changed,
            )
        )
    return ClassChanges(tuple(classes), int((images > 0).sum()), len(judged))


def _holm(p: dict[int, float]) -> set[int]:
    """Return those whose p-value shows a change, so that among all of them one false one comes up in 20 at most.

    Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    found: set[int] = set()
    for rank, place in enumerate(sorted(p, key=p.__getitem__)):
        if p[place] > _LEVEL / (len(p) - rank):
            break
        found.add(place)
    return found


def confusion_shifts(
    labels: NDArray[np.int64], before: NDArray[np.int64], after: NDArray[np.int64], names: Sequence[str]
) -> tuple[ConfusionShift, ...]:
    """Return the mistakes that a variant makes more often than float32, those that grew most first.

    ``labels`` (N,) are the right classes, ``before`` float32's answers and ``after`` the variant's.
    """
    was, now = (
        Counter((label, answer) for label, answer in zip(labels.tolist(), answers.tolist(), strict=True))
        for answers in (before, after)
    )
    grown = {pair: count - was[pair] for pair, count in now.items() if pair[0] != pair[1] and count > was[pair]}
    first = sorted(grown, key=lambda pair: (-grown[pair], pair))[:MOST_SHIFTS]
    return tuple(
        ConfusionShift(label=short(names[pair[0]]), answer=short(names[pair[1]]), float32=was[pair], variant=now[pair])
        for pair in first
    )


def short(name: str) -> str:
    """Return a name as it is kept."""
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
