"""Names for a checkpoint's classes: from the files beside it, ImageNet-1k's for 1,000 classes, else indices."""

from __future__ import annotations

import re
from pathlib import Path

from edgevit.data.imagenet import imagenet_labels as imagenet_labels
from edgevit.data.names import can_be_shown, composed
from edgevit.errors import CheckpointError, DataError
from edgevit.json import MOST_BYTES, read
from edgevit.models.config import Config
from edgevit.models.spec import label_counts, outcomes


def labels_of(config: Config, classes: int, source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return one label for each class, of a single logit those of no and yes, and what was assumed.

    Raises:
        CheckpointError: if the config names another number of classes than the head has.
    """
    named = named_in(config, source)
    if named is not None and classes:
        if len(named) not in label_counts(classes):
            raise CheckpointError(
                f"config.json of {source} names {len(named)} labels, its head has {classes} classes",
                remedy="put the config.json beside the weights that it was saved with, or remove its labels",
            )
        return outcomes(named, classes), ()
    if classes == 1:
        return ("0", "1"), ("nothing names what its single logit decides: its labels are 0 (no) and 1 (yes)",)
    if classes == 1000:
        return imagenet_labels(), ("the head has 1,000 classes and nothing names them: taken for ImageNet-1k's",)
    notes = ("nothing names the classes: labels are class indices",) if classes else ()
    return tuple(str(index) for index in range(classes)), notes


def said_labels(given: Path | tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Return the labels that a user gives, as names or as a file, and what to call them in a message.

    Raises:
        DataError, CheckpointError: as ``read_labels``.
    """
    return (given, "labels") if isinstance(given, tuple) else (read_labels(given), str(given))


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the labels in a file: one a line in the order of classes, or, in JSON, a list of them or ``id2label``.

    Empty lines at the end are left out, and letters in parts are composed (NFC).

    Raises:
        DataError: if it cannot be read, or has no label where there should be one, or one that cannot be shown.
        CheckpointError: if ``id2label`` is not numbered from 0 on.
    """
    remedy = "give a text file with one label a line, or a JSON file with a list of labels or with id2label"
    lines = path.suffix != ".json"
    try:
        if not lines:
            said = read(path, list[str] | Config)
            labels = (named_in(said, str(path)) or ()) if isinstance(said, Config) else tuple(said)
        elif path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} is larger than any list of labels", remedy=remedy)
        else:
            text = path.read_bytes().decode("utf-8-sig").rstrip()
            labels = tuple(line.strip() for line in re.split(r"\r\n?|\n", text)) if text else ()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason}", remedy="save it in UTF-8") from error
    except (OSError, ValueError) as error:
        raise DataError(f"the labels in {path} cannot be read: {error}", remedy=remedy) from error
    if not labels:
        raise DataError(f"no label is in {path}", remedy=remedy)
    for number, label in enumerate(labels, start=1):
        place = f"{'line' if lines else 'label'} {number} of {path}"
        if not label.strip():
            raise DataError(f"{place} is empty", remedy=remedy)
        if not can_be_shown(label):
            raise DataError(f"{place} has characters that cannot be shown: {label[:40]!a}", remedy="take them out")
    return tuple(map(composed, labels))


def named_in(config: Config, source: str) -> tuple[str, ...] | None:
    """Return the labels that a config gives in the order of classes; None if it gives none that mean anything."""
    by_index = config.id2label or {str(index): label for label, index in (config.label2id or {}).items()}
    if by_index:
        indices = [str(index) for index in range(len(by_index))]
        if set(indices) != set(by_index):
            raise CheckpointError(
                f"the labels in config.json of {source} are not numbered 0 to {len(indices) - 1}",
                remedy="correct id2label in config.json, or remove it",
            )
        labels = tuple(by_index[index] for index in indices)
        meaningless = all(by_index[index] in (index, f"LABEL_{index}", "") for index in indices)
        return None if meaningless else labels
    names, descriptions = config.label_names, config.label_descriptions
    if isinstance(descriptions, tuple):
        return descriptions
    return names and tuple((descriptions or {}).get(name, name) for name in names)
