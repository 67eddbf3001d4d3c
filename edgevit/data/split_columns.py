"""Columns of a CSV that say which part of a data set an image belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgevit.data.splits import FAMILIES, SplitName
from edgevit.errors import DataError

_NAMES = ("split", "set", "subset", "partition", "fold", "data set", "dataset")
_MAYBE = ("set", "subset", "data set", "dataset")
"""Columns that may well say something else."""

_FLAG = re.compile(rf"((?:is|in)[_ ]?)?({'|'.join(FAMILIES)})(?:[_ ](?:image|img|set|split))?")
_YES = frozenset(("1", "1.0", "true", "t", "yes", "y"))
_NO = frozenset(("0", "0.0", "false", "f", "no", "n"))


@dataclass(frozen=True, slots=True)
class SplitColumns:
    """Columns that say which part an image is of.

    One column names the part in its cells, or each column is called by one of ``parts`` (``is_train``, ``is_valid``)
    and says yes or no. ``sure`` tells that they can mean nothing else.
    """

    places: tuple[int, ...]
    names: tuple[str, ...]
    parts: tuple[SplitName, ...] = ()
    sure: bool = True

    @property
    def called(self) -> str:
        """Say which columns they are."""
        quoted = [f"'{name}'" for name in self.names]
        return f"column{'s' * (len(quoted) > 1)} {' and '.join(quoted)}"

    def read(self, rows: Sequence[Sequence[str]], place: Callable[[int], str]) -> list[SplitName] | None:
        """Return the part that each of ``rows``, the cells of these columns, says; None if they say something else.

        Raises:
            DataError: if a row says none, or several; ``place`` says where it is.
        """
        return self._flagged(rows, place) if self.parts else self._named([row[0] for row in rows], place)

    def _named(self, values: list[str], place: Callable[[int], str]) -> list[SplitName] | None:
        parts = [FAMILIES.get(value.lower()) for value in values]
        if not any(parts) and not self.sure:
            return None
        for index, part in enumerate(parts):
            if part is None:
                raise DataError(
                    f"{place(index)}: '{values[index]}' in {self.called} is no part of a data set",
                    remedy="say train, validation or test in it, or give the column another name",
                )
        return [part for part in parts if part is not None]

    def _flagged(self, rows: Sequence[Sequence[str]], place: Callable[[int], str]) -> list[SplitName] | None:
        found: list[SplitName] = []
        for index, row in enumerate(rows):
            answers = [yes_or_no(cell) for cell in row]
            if None in answers and not self.sure:
                return None
            said = {part for part, answer in zip(self.parts, answers, strict=True) if answer}
            said = said or ({self._otherwise} if self._otherwise is not None else set())
            if None in answers or len(said) != 1:
                raise DataError(
                    f"{place(index)}: {', '.join(map(repr, row))} in {self.called} does not say one part of a data set",
                    remedy="say 1 (true) or 0 (false) in them, 1 for one part of an image, or give them other names",
                )
            found.append(said.pop())
        return found

    @property
    def _otherwise(self) -> SplitName | None:
        """Return what an image is of that is of none of ``parts``."""
        if "train" not in self.parts:
            return "train"
        return "test" if "test" not in self.parts else None


def split_columns(names: Sequence[str], *, labelled: bool) -> list[SplitColumns]:
    """Return the columns that say which part an image is of: each by itself, or all that say yes and no together.

    Columns called ``train`` or ``test`` alone may be classes where no column is ``labelled``, as the labels.
    """
    lower = [name.lower() for name in names]
    named = [SplitColumns((place,), (names[place],), sure=name not in _MAYBE)
             for place, name in enumerate(lower) if name in _NAMES]  # fmt: skip
    if named:
        return named
    found = [(place, match) for place, name in enumerate(lower) if (match := _FLAG.fullmatch(name))]
    flags = [(place, match) for place, match in found if match[1] or labelled]
    if not flags:
        return []
    places = tuple(place for place, _ in flags)
    return [
        SplitColumns(
            places,
            tuple(names[place] for place in places),
            tuple(FAMILIES[match[2]] for _, match in flags),
            sure=all(match[1] for _, match in flags),
        )
    ]


def yes_or_no(cell: str) -> bool | None:
    """Return what a cell of 0 and 1, or of words for it, says; None if it says something else."""
    value = cell.lower()
    return True if value in _YES else False if value in _NO else None
