"""CSV files that list images: a column of paths and a column of labels."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from edgevit.data.columns import Columns, read_columns, unclear
from edgevit.data.dataset import FileDataset, LabelSets
from edgevit.data.names import composed, similar_names_note
from edgevit.data.split_columns import yes_or_no
from edgevit.data.splits import SERVING, SplitName
from edgevit.errors import DataError

_MAX_BYTES = 256 << 20
_MOST_OF_A_LINE = 1 << 16
_MAX_CLASSES = 1_000_000
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_START = 4  # bytes, two characters of UTF-16


@dataclass(frozen=True, slots=True)
class _TableRow:
    line: int
    path: str
    label: str
    split: tuple[str, ...]
    marks: tuple[str, ...]


def load_csv(
    file: Path, root: Path | None = None, split: Literal["train", "validation", "test"] | None = None
) -> FileDataset:
    """Return the images that a CSV lists; paths in it are relative to ``root``.

    Without ``root`` they are relative to the CSV's folder or, where no image is found there, to the folder beside the
    CSV that has its name (photos.csv and photos/).

    Commas, semicolons, tabs or vertical bars part the columns. The first line names them: ``path`` (or ``filename``,
    ``image``, ...), and ``label`` (``class``, ...) or any one other; a file with paths alone has images without labels.
    Without a column of labels, several columns of 0 and 1 say which labels an image has (``sets``). Else labels are all
    class indices from 0 (the classes are then named "0", "1", ... until a model gives them names, see
    ``map_labels``) or all class names. Where a column ``split``, or ``is_train`` and the like, says which part an
    image is of, only those that serve ``split`` are returned, if it is given, as of folders. The ``notes`` of what is
    returned say what was assumed. The text is UTF-8, or UTF-16 with a byte order mark.

    Raises:
        DataError: if the file is missing or malformed (the line is named), a path leads out of ``root``, or none of
            the images exists.

    """
    columns, rows = _rows(file)
    if not rows:
        raise DataError(f"{file} lists no images", remedy="add a line for each image below the header")
    sets = _sets(rows, columns, file) if columns.classes else None
    if sets is not None:
        labels, class_names, label_sets = sets
    else:
        labels, class_names = _labels(rows, file) if columns.label is not None else ([-1] * len(rows), ())
        label_sets = None
    chosen, notes = _serving(rows, columns, file, split)
    rows, labels = [rows[place] for place in chosen], [labels[place] for place in chosen]
    paths = _existing_paths(rows, file, (file.parent, file.with_suffix("")) if root is None else (root,), columns)
    places = [f"line {row.line} of {file.name}" for row in rows]
    notes = [*columns.notes, *notes, *_repeated(rows, paths, file), *similar_names_note(class_names)]
    return FileDataset(
        str(file), paths, np.asarray(labels, dtype=np.int64), class_names, places, notes=notes, sets=label_sets
    )


def csv_splits(file: Path) -> frozenset[str]:
    """Return which of "train", "validation" and "test" a CSV names as parts.

    Raises:
        DataError: as ``load_csv`` does.
    """
    columns, rows = _rows(file)
    return frozenset(_parts(rows, columns, file) or ())


def _parts(rows: list[_TableRow], columns: Columns, file: Path) -> list[SplitName] | None:
    if columns.split is None:
        return None
    return columns.split.read([row.split for row in rows], lambda index: f"{file}, line {rows[index].line}")


def _serving(
    rows: list[_TableRow], columns: Columns, file: Path, split: SplitName | None
) -> tuple[list[int], list[str]]:
    """Return which rows serve ``split``, and what to say of it."""
    parts = _parts(rows, columns, file)
    every = list(range(len(rows)))
    if columns.split is None:
        return every, []
    name = columns.split.called
    if parts is None or split is None:
        return every, [f"{name} of {file.name} is not used"]
    serving = next((part for part in SERVING[split] if part in parts), None)
    if serving is None:
        raise DataError(
            f"{name} of {file} has {' and '.join(sorted(set(parts)))}, but no images for {split}",
            remedy=f"say {split} in it for some images, or give a CSV without that column",
        )
    chosen = [index for index in every if parts[index] == serving]
    return chosen, [f"{len(chosen)} of {len(rows)} images of {file.name} are {serving} by its {name}"]


def _rows(file: Path) -> tuple[Columns, list[_TableRow]]:
    text = _text(file)
    separator = text[4:5] if text[:4].lower() == "sep=" else None  # as Excel says it
    stream = io.StringIO(text, newline="")
    skipped = 0
    if separator:
        stream.readline()
        skipped = 1
    start = stream.tell()
    columns = read_columns(list(islice(stream.read(_MOST_OF_A_LINE).splitlines(), 100)), file)
    stream.seek(start)
    reader = csv.reader(stream, strict=True, delimiter=columns.separator)
    try:
        return columns, list(_parse(reader, columns, file, skipped))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num + skipped}: {error}", remedy="correct that line") from error


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(f"{file} has more than {_MAX_BYTES >> 20} MiB", remedy="split it into smaller files")
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}", remedy="check the path of the CSV") from error
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8-sig")
    try:
        if encoding == "utf-8-sig" and b"\0" in content[:_START]:
            raise DataError(
                f"{file} is not UTF-8 text: there are zero bytes in it, as in UTF-16 without a byte order mark",
                remedy="save it as CSV in UTF-8",
            )
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DataError(f"{file} is not {name} text: {error.reason}", remedy="save it as CSV in UTF-8") from error


def _parse(reader: Iterator[list[str]], columns: Columns, file: Path, skipped: int) -> Iterator[_TableRow]:
    header = columns.header
    for cells in reader:
        line: int = reader.line_num + skipped  # type: ignore[attr-defined]  # csv's reader has it, Iterator has not
        if not any(cell.strip() for cell in cells):
            continue
        if header:
            header = False
            continue
        width = len(columns.names)
        if len(cells) < width or any(cell.strip() for cell in cells[width:]):
            raise DataError(
                f"{file}, line {line}: {len(cells)} values for {width} columns",
                remedy="correct that line; put values that contain a separator into double quotes",
            )
        label = "" if columns.label is None else composed(cells[columns.label].strip())
        part = tuple(cells[place].strip() for place in columns.split.places) if columns.split is not None else ()
        marks = tuple(cells[place].strip() for place in columns.classes)
        row = _TableRow(line, cells[columns.path].strip(), label or ", ".join(marks), part, marks)
        if not row.path or (columns.label is not None and not label):
            raise DataError(
                f"{file}, line {line}: a value is empty; {columns.used}",
                remedy="give a path and a label, or drop the line",
            )
        yield row


def _existing_paths(rows: list[_TableRow], file: Path, folders: tuple[Path, ...], columns: Columns) -> list[Path]:
    for folder in folders:
        paths = [_path(folder, row, file) for row in rows]
        if any(_is_file(path) for path in paths):
            return paths
    raise DataError(
        f"none of the {len(rows)} images in {file}, such as {rows[0].path}, is in {' or '.join(map(str, folders))}; "
        f"{columns.used}",
        remedy="give the folder that the paths are relative to with --root",
    )


def _path(folder: Path, row: _TableRow, file: Path) -> Path:
    path = folder / row.path  # an absolute path stays as it is
    slashed = row.path.replace("\\", "/")
    if "\0" in row.path or ".." in Path(slashed).parts or not path.is_relative_to(folder):
        raise DataError(
            f"{file}, line {row.line}: {row.path!r} leads out of {folder}",
            remedy="give paths inside that folder, or another folder with --root",
        )
    # A Mac's folders may be in another Unicode form than the text; Windows parts folders by backslashes.
    forms = [row.path, *(unicodedata.normalize(form, text) for text in (row.path, slashed) for form in ("NFC", "NFD"))]
    inside = (folder / form for form in forms if not form.startswith("/") or form == row.path)
    return next((other for other in inside if _is_file(other)), path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long, or a folder on the way may not be entered: reading it says which
        return False


def _repeated(rows: list[_TableRow], paths: list[Path], file: Path) -> list[str]:
    """Return the note on images that are listed more than once.

    Raises:
        DataError: if one is listed with two labels.
    """
    first: dict[str, _TableRow] = {}
    repeated = []
    for row, path in zip(rows, paths, strict=True):
        before = first.setdefault(os.path.normpath(path), row)
        if before.label != row.label:
            raise DataError(
                f"{file}, lines {before.line} and {row.line}: {row.path} has the labels '{before.label}' and "
                f"'{row.label}'",
                remedy="give each image one label",
            )
        if before is not row:
            repeated.append(row.line)
    if not repeated:
        return []
    return [f"{len(repeated)} lines of {file.name} list an image that is listed before, such as line {repeated[0]}"]


def _sets(rows: list[_TableRow], columns: Columns, file: Path) -> tuple[list[int], tuple[str, ...], LabelSets]:
    """Return labels, classes and what these stand for, of columns that say 0 or 1.

    Where each image has one label, these are the classes, in the order of the columns.

    Raises:
        DataError: if a column says something else.
    """
    names = tuple(composed(columns.names[place]) for place in columns.classes)
    found = []
    for row in rows:
        answers = [yes_or_no(mark) for mark in row.marks]
        if None in answers:
            wrong = answers.index(None)
            said = f"'{row.marks[wrong][:20]}' in column '{names[wrong]}', line {row.line}"
            why = f"none of them is called 'label', and {said}, is neither 0 nor 1, as where each column is a label"
            raise unclear(file, columns.names, why)
        found.append(tuple(name for name, answer in zip(names, answers, strict=True) if answer))
    if len(set(names)) < len(names):
        raise unclear(file, columns.names, "two of them have the same name")
    single = all(len(labels) == 1 for labels in found)
    of_class = tuple((name,) for name in names) if single else tuple(sorted(set(found)))
    index = {labels: position for position, labels in enumerate(of_class)}
    class_names = tuple(", ".join(labels) or "(none)" for labels in of_class)
    return [index[labels] for labels in found], class_names, LabelSets(names, of_class)


def _labels(rows: list[_TableRow], file: Path) -> tuple[list[int], tuple[str, ...]]:
    if not all(row.label.isascii() and _number(row.label).lstrip("-").isdigit() for row in rows):
        class_names = sorted({row.label for row in rows})
        index = {name: position for position, name in enumerate(class_names)}
        return [index[row.label] for row in rows], tuple(class_names)
    for row in rows:
        if row.label.startswith("-") or len(_number(row.label)) > 9 or int(_number(row.label)) >= _MAX_CLASSES:
            raise DataError(
                f"{file}, line {row.line}: label {row.label[:20]} is not a class index",
                remedy=f"use indices from 0 to {_MAX_CLASSES - 1}, or class names",
            )
    labels = [int(_number(row.label)) for row in rows]
    return labels, tuple(str(position) for position in range(max(labels) + 1))


def _number(label: str) -> str:
    """Return an index without the ".0" that tables of floats put behind it."""
    return label.removesuffix(".0")
