"""ImageNet-1k's classes: their names, the WordNet ids that its folders are called by, and models that know them."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from edgevit.data.names import plain

_ID = re.compile(r"(n\d{8})(?:[-_ .].*)?", re.DOTALL)
_ENOUGH = 900
"""So many of a model's 1,000 labels must be ImageNet's, each in its place: people shorten and correct the names."""


@cache
def imagenet_labels() -> tuple[str, ...]:
    """Return the names of ImageNet-1k's classes in the order of their indices: WordNet's lemmas of their synsets."""
    return _lines("labels.txt")


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet-1k's classes in the order of their indices."""
    return _lines("synsets.txt")


def wordnet_id(name: str) -> str | None:
    """Return the id that a name is or begins with ("n01440764", "n01440764-tench"), or None."""
    found = _ID.fullmatch(name.strip())
    return found[1] if found else None


@cache
def is_imagenet(labels: tuple[str, ...]) -> bool:
    """Tell whether these are ImageNet-1k's classes in its order, by their ids or, nearly all, by their names."""
    if len(labels) != len(imagenet_labels()):
        return False
    if tuple(map(wordnet_id, labels)) == imagenet_synsets():
        return True
    same = (_names(label) & _names(ours) for label, ours in zip(labels, imagenet_labels(), strict=True))
    return sum(map(bool, same)) >= _ENOUGH


def _names(label: str) -> frozenset[str]:
    return frozenset(plain(part) for part in label.split(","))


def _lines(name: str) -> tuple[str, ...]:
    return tuple((files("edgevit.data") / "imagenet1k" / name).read_text(encoding="utf-8").splitlines())
