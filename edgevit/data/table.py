"""CSV files that list images: a column ``path`` and a column of labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgevit.data.dataset import FileDataset
from edgevit.errors import DataError

_MAX_BYTES = 256 << 20
_MAX_CLASSES = 1_000_000


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    path: str
    label: str


def load_csv(file: Path, root: Path | None = None) -> FileDataset:
    """Return the images that a CSV lists; paths in it are relative to ``root``.

    Without ``root`` they are relative to the CSV's folder or, where no image is found there, to the folder beside the
    CSV that has its name (photos.csv and photos/).

    The first line names the columns: ``path``, and ``label`` or any one other; a file with ``path`` alone has images
    without labels. Labels are all class indices from 0 (the classes are then named "0", "1", ... until a model gives
    them names, see ``map_labels``) or all class names.

    Raises:
        DataError: if the file is missing or malformed (the line is named), a path leads out of ``root``, or none of
            the images exists.

    """
    columns, rows = _rows(file)
    if not rows:
        raise DataError(f"{file} lists no images", remedy="add a line for each image below the header")
    paths = _existing_paths(rows, file, (file.parent, file.with_suffix("")) if root is None else (root,))
    labels, class_names = _labels(rows, file) if len(columns) > 1 else ([-1] * len(rows), ())
    places = [f"line {row.line} of {file.name}" for row in rows]
    return FileDataset(str(file), paths, np.asarray(labels, dtype=np.int64), class_names, places)


def _rows(file: Path) -> tuple[list[str], list[_Row]]:
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        label = _label_column(columns, file)
        return columns, list(_parse(reader, columns, label, file))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: {error}", remedy="mend that line") from error


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(f"{file} has more than {_MAX_BYTES >> 20} MiB", remedy="split it into smaller files")
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}", remedy="check the path of the CSV") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: {error.reason}", remedy="save it as CSV in UTF-8") from error


def _label_column(columns: list[str], file: Path) -> int | None:
    others = [name for name in columns if name != "path"]
    if columns.count("path") != 1 or columns.count("label") > 1 or (len(others) > 1 and "label" not in others):
        raise DataError(
            f"{file} has the columns {', '.join(columns) or '(none)'}",
            remedy="let its first line name one column 'path' and one 'label'",
        )
    if not others:
        return None
    return columns.index("label" if "label" in others else others[0])


def _parse(reader: Iterator[list[str]], columns: list[str], label: int | None, file: Path) -> Iterator[_Row]:
    path = columns.index("path")
    for cells in reader:
        line: int = reader.line_num  # type: ignore[attr-defined]  # csv's reader has it, Iterator has not
        if not cells:
            continue
        if len(cells) != len(columns):
            raise DataError(
                f"{file}, line {line}: {len(cells)} values for {len(columns)} columns",
                remedy="mend that line; put values that contain a comma into double quotes",
            )
        row = _Row(line, cells[path].strip(), "" if label is None else cells[label].strip())
        if not row.path or (label is not None and not row.label):
            raise DataError(
                f"{file}, line {line}: a value is empty", remedy="give a path and a label, or drop the line"
            )
        yield row


def _existing_paths(rows: list[_Row], file: Path, folders: tuple[Path, ...]) -> list[Path]:
    for folder in folders:
        paths = [_path(folder, row, file) for row in rows]
        if any(path.is_file() for path in paths):
            return paths
    raise DataError(
        f"none of the {len(rows)} images in {file}, such as {rows[0].path}, is in {' or '.join(map(str, folders))}",
        remedy="give the folder that the paths are relative to with --root",
    )


def _path(folder: Path, row: _Row, file: Path) -> Path:
    path = folder / row.path  # an absolute path stays as it is
    if "\0" in row.path or ".." in Path(row.path).parts or not path.is_relative_to(folder):
        raise DataError(
            f"{file}, line {row.line}: {row.path!r} leads out of {folder}",
            remedy="give paths inside that folder, or another folder with --root",
        )
    return path


def _labels(rows: list[_Row], file: Path) -> tuple[list[int], tuple[str, ...]]:
    if not all(row.label.isascii() and row.label.lstrip("-").isdigit() for row in rows):
        class_names = sorted({row.label for row in rows})
        index = {name: position for position, name in enumerate(class_names)}
        return [index[row.label] for row in rows], tuple(class_names)
    for row in rows:
        if row.label.startswith("-") or len(row.label) > 9 or int(row.label) >= _MAX_CLASSES:
            raise DataError(
                f"{file}, line {row.line}: label {row.label[:20]} is not a class index",
                remedy=f"use indices from 0 to {_MAX_CLASSES - 1}, or class names",
            )
    labels = [int(row.label) for row in rows]
    return labels, tuple(str(position) for position in range(max(labels) + 1))
