"""Names for a checkpoint's classes: as the files beside it give them, ImageNet-1k's for 1,000, else indices."""

from __future__ import annotations

import re
from importlib.resources import files

from edgevit.errors import CheckpointError
from edgevit.models.config import Config


def labels_of(config: Config, classes: int, source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return one label for each class, and what was assumed.

    Raises:
        CheckpointError: if the config names another number of classes than the head has.
    """
    named = _named(config, source)
    if named is not None and classes:
        if len(named) != classes:
            raise CheckpointError(
                f"config.json of {source} names {len(named)} labels, its head has {classes} classes",
                remedy="put the config.json beside the weights that it was saved with, or remove its labels",
            )
        return named, ()
    if classes == 1000:
        return imagenet_labels(), ("the head has 1,000 classes and nothing names them: taken for ImageNet-1k's",)
    notes = ("the checkpoint names no classes: labels are class indices",) if classes else ()
    return tuple(str(index) for index in range(classes)), notes


def imagenet_labels() -> tuple[str, ...]:
    """Return the names of ImageNet-1k's classes in the order of their indices: WordNet's lemmas of their synsets."""
    text = (files("edgevit.models") / "imagenet1k" / "labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def _named(config: Config, source: str) -> tuple[str, ...] | None:
    """Return the labels that a config gives in the order of classes; None if it gives none that mean anything."""
    if config.id2label:
        indices = [str(index) for index in range(len(config.id2label))]
        if set(indices) != set(config.id2label):
            raise CheckpointError(
                f"the labels in config.json of {source} are not numbered 0 to {len(indices) - 1}",
                remedy="correct id2label in config.json, or remove it",
            )
        labels = tuple(config.id2label[index] for index in indices)
        return None if all(re.fullmatch(r"(LABEL_)?\d*", label) for label in labels) else labels
    names, descriptions = config.label_names, config.label_descriptions
    if isinstance(descriptions, tuple):
        return descriptions
    return names and tuple((descriptions or {}).get(name, name) for name in names)
