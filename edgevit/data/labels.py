"""Maps a data set's labels to a model's: one for each image, or several."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgevit.data.dataset import Dataset, LabelSets
from edgevit.data.imagenet import imagenet_labels, imagenet_synsets, is_imagenet, wordnet_id
from edgevit.data.names import plain
from edgevit.errors import DataError

_IDS = re.compile(r"\bn\d{8}\b")
Match = Callable[[str], int | None]

_SEPARATORS = (r";", r"\|", r",", r"\s")
_SURE = (r";", r"\|")
"""Separators that names of classes hardly have in them."""


def map_labels(dataset: Dataset, model_labels: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the labels (N,) of ``dataset`` as indices into ``model_labels``; -1 stays -1.

    Classes are matched by name if every class that occurs has a match; case, underscores, spaces and the Unicode form
    do not count, and where a name lists synonyms ("tench, Tinca tinca") one of them is enough. A model of ImageNet-1k's
    classes knows WordNet's ids ("n01440764"), too. Otherwise class names that are all whole numbers are taken as
    indices; those of a data set that is ``indexed`` always are.

    Raises:
        DataError: if an index is out of the model's range (the first such image is named), names have no match, or
            an image has several labels or none.

    """
    check_sets(dataset)
    used = [int(label) for label in np.unique(dataset.labels) if label >= 0]
    names = [dataset.class_names[label] for label in used]
    matches = [None] * len(names) if dataset.indexed else match_labels(names, model_labels)
    found = [match for match in matches if match is not None]
    table = np.full(len(dataset.class_names) + 1, -1, dtype=np.int64)  # its last entry serves label -1
    if len(found) == len(names) and not dataset.indexed:
        table[used] = found
    elif all(name.isascii() and name.isdigit() for name in names):
        indices = [int(name) for name in names]
        _check_range(dataset, used, indices, model_labels)
        table[used] = indices
    else:
        unmatched = [name for name, match in zip(names, matches, strict=True) if match is None]
        for match_one in (_matcher(model_labels, lists=True), _index_below(len(model_labels))):
            several = next((name for name in unmatched if _labels_in(name, match_one)), None)
            if several is not None:
                raise _several(dataset, dataset.class_names.index(several))
        raise _unmatched(unmatched, model_labels)
    return table[dataset.labels]


def map_several(dataset: Dataset, model_labels: tuple[str, ...]) -> NDArray[np.int64] | None:
    """Return which of ``model_labels`` each image has (N, labels), 1 or 0; None where the data names one for each.

    A CSV says it by a column of 0 and 1 for each label, or lists labels in one cell, with ";", "|", "," or spaces
    between. Names are matched as by ``map_labels``. An image without a label (-1) is -1 throughout.

    Raises:
        DataError: if names have no match, or the columns say nothing of one of the model's labels.

    """
    by_name, by_index = _matcher(model_labels, lists=True), _index_below(len(model_labels))
    used = sorted({int(label) for label in dataset.labels if label >= 0})
    if dataset.sets is not None:
        found = _of_columns(dataset.sets, used, by_name, by_index, model_labels)
    else:
        lists = _of_cells([dataset.class_names[label] for label in used], by_name, by_index, model_labels)
        if lists is None:
            return None
        found = lists
    table = np.full((len(dataset.class_names) + 1, len(model_labels)), -1, dtype=np.int64)
    for label, labels in zip(used, found, strict=True):
        table[label] = 0
        table[label, list(labels)] = 1
    return table[dataset.labels]


def check_sets(dataset: Dataset) -> None:
    """See to it that each image has one label, where the data says of each label whether an image has it.

    Raises:
        DataError: if one has several, or none.
    """
    if dataset.sets is None:
        return
    for label in np.unique(dataset.labels):
        if len(dataset.sets.of_class[label]) != 1:
            raise _several(dataset, int(label))


def check_one_label(dataset: Dataset) -> None:
    """See to it that no class of a table's looks like a list of labels, whose parts are labels of other images.

    Raises:
        DataError: if one does.
    """
    check_sets(dataset)
    used = [int(label) for label in np.unique(dataset.labels) if label >= 0]
    for separator in _SEPARATORS:
        lists = [_parts(dataset.class_names[label], separator) for label in used]
        alone = {plain(parts[0]) for parts in lists if len(parts) == 1}
        counts = Counter(plain(part) for parts in lists for part in parts)
        for label, parts in zip(used, lists, strict=True):
            known = [plain(p) in alone or (separator in _SURE and counts[plain(p)] > 1) for p in parts]
            if len(parts) > 1 and all(known):
                raise _several(dataset, label)


def match_labels(names: Sequence[str], model_labels: tuple[str, ...]) -> list[int | None]:
    """Return for each of ``names`` the one model label that means the same (see ``map_labels``), None without one."""
    match = _matcher(model_labels)
    return [match(name) for name in names]


def _matcher(model_labels: tuple[str, ...], *, lists: bool = False) -> Match:
    """Return what finds a name's label; where commas part ``lists`` of labels, they do not part synonyms."""
    known = _label_index(model_labels)
    if not is_imagenet(model_labels):
        return lambda name: _match(name, known, lists=lists)
    # Ids go by the place in ImageNet's order; a model whose labels are ids knows the names, too.
    known = _label_index(imagenet_labels()) | known
    ids = {synset: index for index, synset in enumerate(imagenet_synsets())}
    return lambda name: _by_id(name, ids, known, lists=lists)


def _by_id(name: str, ids: dict[str, int], known: dict[str, int], *, lists: bool) -> int | None:
    if len(_IDS.findall(name)) > 1:
        return None
    synset = wordnet_id(name)
    return _match(name, known, lists=lists) if synset is None else ids.get(synset)


def _index_below(count: int) -> Match:
    def index(name: str) -> int | None:
        whole = name.isascii() and name.isdigit() and len(name) < 10
        return int(name) if whole and int(name) < count else None

    return index


def _label_index(model_labels: tuple[str, ...]) -> dict[str, int]:
    """Index labels by their whole name and, where it means one label alone, by each synonym."""
    whole: dict[str, list[int]] = {}
    synonyms: dict[str, list[int]] = {}
    for position, label in enumerate(model_labels):
        whole.setdefault(plain(label), []).append(position)
        for synonym in {plain(part) for part in label.split(",")}:
            synonyms.setdefault(synonym, []).append(position)
    by_name = {name: positions[0] for name, positions in synonyms.items() if len(positions) == 1}
    return by_name | {name: positions[0] for name, positions in whole.items() if len(positions) == 1}


def _match(name: str, known: dict[str, int], *, lists: bool) -> int | None:
    """Return the label of a name, or of its synonyms, which must not mean two of them."""
    whole = known.get(plain(name))
    if whole is not None or lists:
        return whole
    found = {known[part] for part in map(plain, name.split(",")) if part in known}
    return found.pop() if len(found) == 1 else None


def _labels_in(cell: str, match: Match) -> tuple[int, ...] | None:
    """Return the labels that a cell names: one, or several with a separator between; None if they are not known."""
    one = match(cell)
    if one is not None:
        return (one,)
    for parts in _lists(cell):
        found = [match(part) for part in parts]
        known = tuple(dict.fromkeys(label for label in found if label is not None))
        if None not in found:
            return known
    return None


def _of_cells(
    cells: list[str], by_name: Match, by_index: Match, model_labels: tuple[str, ...]
) -> list[tuple[int, ...]] | None:
    """Return the labels that each cell lists, None if each names one."""
    match = by_name
    found = [_labels_in(cell, match) for cell in cells]
    if None in found and all(re.fullmatch(r"[0-9;|,\s]+", cell) for cell in cells):
        match = by_index
        found = [_labels_in(cell, match) for cell in cells]
    unknown = [cell for cell, labels in zip(cells, found, strict=True) if labels is None]
    known = [labels for labels in found if labels is not None]
    if all(len(labels) == 1 for labels in known) and not any(_looks_like_a_list(cell, match) for cell in unknown):
        return None
    if unknown:
        raise _unmatched(unknown, model_labels)
    return known


def _looks_like_a_list(cell: str, match: Match) -> bool:
    """Tell whether an unknown cell may be a list of labels: by its separators, or because it has a known one in it."""
    return any(separator in cell for separator in ";|") or any(
        match(part) is not None for parts in _lists(cell) for part in parts
    )


def _lists(cell: str) -> Iterator[list[str]]:
    for separator in _SEPARATORS:
        parts = _parts(cell, separator)
        if len(parts) > 1:
            yield parts


def _parts(cell: str, separator: str) -> list[str]:
    return [part.strip() for part in re.split(separator, cell) if part.strip()] or [cell]


def _of_columns(
    sets: LabelSets, used: list[int], by_name: Match, by_index: Match, model_labels: tuple[str, ...]
) -> list[tuple[int, ...]]:
    places = {name: by_name(name) for name in sets.names}
    if None in places.values() and all(by_index(name) is not None for name in sets.names):
        places = {name: by_index(name) for name in sets.names}
    unknown = [name for name, place in places.items() if place is None]
    if unknown:
        raise _unmatched(unknown, model_labels)
    column_of = {place: name for name, place in places.items() if place is not None}
    twice = [name for name, place in places.items() if place is not None and column_of[place] != name]
    if twice:
        raise DataError(
            f"columns '{twice[0]}' and '{column_of[places[twice[0]] or 0]}' are the same label of the model",
            remedy="leave one of the columns out",
        )
    missing = [label for place, label in enumerate(model_labels) if place not in column_of]
    if missing:
        raise DataError(
            f"no column says which images have the label {_listed(missing)}",
            remedy="add a column of 0 and 1 for each of the model's labels",
        )
    return [tuple(place for name in sets.of_class[label] if (place := places[name]) is not None) for label in used]


def _several(dataset: Dataset, label: int) -> DataError:
    first = int(np.flatnonzero(dataset.labels == label)[0])
    named = dataset.class_names[label]
    said = f"the labels {named!r}: several labels for one image"
    if dataset.sets is not None and not dataset.sets.of_class[label]:
        said = "none of the labels, as only an image of a model for several labels may"
    return DataError(
        f"{dataset.describe(first)} has {said}, and each needs one here",
        remedy="give each image one label, or a model for several labels: export --activation sigmoid",
    )


def _check_range(dataset: Dataset, used: list[int], indices: list[int], model_labels: tuple[str, ...]) -> None:
    beyond = [label for label, index in zip(used, indices, strict=True) if index >= len(model_labels)]
    if beyond:
        first = int(np.flatnonzero(np.isin(dataset.labels, beyond))[0])
        label = dataset.class_names[int(dataset.labels[first])]
        raise DataError(
            f"{dataset.describe(first)} has label {label}, but the model has {len(model_labels)} classes",
            remedy=f"use labels from 0 to {len(model_labels) - 1}, or the names of the model's classes",
        )


def _unmatched(names: list[str], model_labels: tuple[str, ...]) -> DataError:
    return DataError(
        f"the model has no class called {_listed(names)}",
        remedy=f"name the classes as the model does ({_listed(model_labels)}), or give class indices",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
