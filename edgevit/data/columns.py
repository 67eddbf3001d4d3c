"""Recognises a CSV's separator, and its columns of paths, labels and parts of the data set."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from edgevit.data.formats import UNREAD_SUFFIXES
from edgevit.data.images import SUFFIXES
from edgevit.data.split_columns import SplitColumns, split_columns
from edgevit.errors import DataError

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_PATHS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_file",
    "image_name", "img", "img_path", "fname",
)  # fmt: skip
_IDS = ("image_id", "img_id", "id", "name")
_LABELS = (
    "label", "class", "class_name", "classname", "label_name", "category", "target", "class_id", "class_index",
    "class_idx", "label_id", "label_index", "label_idx", "category_id", "imagenet_index", "wnid", "synset",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the columns are; ``notes`` say what was assumed, ``used`` names them for errors.

    Without a column of labels there may be several of ``classes``, each of which must say 0 or 1.
    """

    separator: str
    names: list[str]
    path: int
    label: int | None
    split: SplitColumns | None
    notes: tuple[str, ...]
    header: bool = True
    classes: tuple[int, ...] = ()

    @property
    def used(self) -> str:
        """Say which columns were taken for what."""
        label = "none" if self.label is None else f"'{self.names[self.label]}'"
        label = f"{len(self.classes)} columns" if self.classes else label
        return f"paths are taken from column '{self.names[self.path]}', labels from {label}"


def read_columns(lines: list[str], file: Path) -> Columns:
    """Return the columns of a CSV by its first line, ``lines``, and where this names none, by what it holds.

    Raises:
        DataError: if it cannot be told which column has the paths, or which the labels.
    """
    first = next((line for line in lines if line.strip()), "")
    ways = {separator: _cells(first, separator) for separator in _SEPARATORS}
    for is_path, header in ((_is_path_name, True), (_is_image, False)):
        found = {separator: cells for separator, cells in ways.items() if any(map(is_path, cells))}
        if found:
            separator = max(found, key=lambda one: len(found[one]))
            return _with_header(separator, found[separator], file) if header else _without(separator, ways, file)
    columns = max(ways.values(), key=len)
    raise unclear(file, columns, "none of them is called 'path'")


def _is_path_name(cell: str) -> bool:
    return cell.lower() in _PATHS or cell.lower() in _IDS


def _is_image(cell: str) -> bool:
    return Path(cell).suffix.lower() in SUFFIXES | UNREAD_SUFFIXES


def _cells(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader(io.StringIO(line), delimiter=separator), [])]
    except csv.Error:
        return []


def _with_header(separator: str, names: list[str], file: Path) -> Columns:
    lower = [name.lower() for name in names]
    path = _one(lower, names, _PATHS, "path", file)
    if path is None:
        path = _one(lower, names, _IDS, "path", file)
    if path is None:
        raise unclear(file, names, "none of them is called 'path'")
    label = _one(lower, names, _LABELS, "label", file)
    splits = split_columns(names, labelled=label is not None)
    if len(splits) > 1:
        raise unclear(file, names, "several say which part an image is of")
    split = splits[0] if splits else None
    taken = {path, *(split.places if split is not None else ())}
    rest = [place for place in range(len(names)) if place not in taken and names[place]]
    notes = []
    if label is None and len(rest) > 1:
        listed = ", ".join(names[place] for place in rest[:10]) + (", ..." if len(rest) > 10 else "")
        notes.append(f"labels are taken from {len(rest)} columns of {file.name}, 1 where an image has it: {listed}")
        return Columns(separator, names, path, None, split, tuple(notes), classes=tuple(rest))
    if label is None and rest:
        label = rest[0]
        notes.append(f"labels are taken from column '{names[label]}' of {file.name}")
    unused = [names[place] for place in rest if place != label]
    if unused:
        notes.append(f"columns of {file.name} that are not used: {', '.join(unused)}")
    return Columns(separator, names, path, label, split, tuple(notes))


def _one(lower: list[str], names: list[str], known: tuple[str, ...], best: str, file: Path) -> int | None:
    """Return the place of ``best``, else of the only name that is ``known``; None without one."""
    places = [place for place, name in enumerate(lower) if name in known]
    exact = [place for place in places if names[place] == best] or [p for p in places if lower[p] == best]
    places = exact or places
    if len(places) > 1:
        raise unclear(file, names, f"several may be the {best}: {', '.join(names[place] for place in places)}")
    return places[0] if places else None


def _without(separator: str, ways: dict[str, list[str]], file: Path) -> Columns:
    cells = ways[separator]
    paths = [place for place, cell in enumerate(cells) if _is_image(cell)]
    if len(paths) != 1 or len(cells) > 2:
        raise unclear(file, cells, "its first line names no columns")
    names = [f"column {place + 1}" for place in range(len(cells))]
    label = 1 - paths[0] if len(cells) == 2 else None
    taken = f"paths are {names[paths[0]]}" + ("" if label is None else f", labels {names[label]}")
    notes = (f"{file.name} does not name its columns: {taken}",)
    return Columns(separator, names, paths[0], label, None, notes, header=False)


def unclear(file: Path, columns: list[str], why: str) -> DataError:
    """Return the error that it cannot be told which columns are what."""
    return DataError(
        f"{file} has the columns {', '.join(columns) or '(none)'}: {why}",
        remedy="let its first line name one column 'path' and one 'label', with commas, semicolons or tabs between",
    )
