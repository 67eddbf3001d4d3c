"""Names of classes: how they are stored, and how they are compared."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from edgevit.errors import DataError

#: Kinds of characters that steer a terminal, begin a line, or are half of one.
_UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: Of those that only shape what is around them, as scripts and emoji need, the ones that turn or hide what follows:
#: embeddings, overrides and isolates of a direction, what is deprecated, byte order marks, annotations, language tags.
_MISLEADING = frozenset(
    map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC), 0xE0001))
)
#: No characters at all, which XML does not take.
_NONE = frozenset("\ufffe\uffff")


def can_be_shown(name: str) -> bool:
    """Return whether a terminal, a list of one name a line and XML can have each character of ``name``."""
    return not any(
        letter in _NONE or letter in _MISLEADING or unicodedata.category(letter) in _UNSEEN for letter in name
    )


def check_shown(names: Iterable[str], source: str) -> None:
    """See to it that the names of classes that ``source`` gives can be shown.

    Raises:
        DataError: if one cannot.
    """
    for name in names:
        if not can_be_shown(name):
            raise DataError(
                f"the class {name[:40]!a} of {source} has characters that cannot be shown",
                remedy="take them out where the classes are named; for export, --labels names others",
            )


def composed(name: str) -> str:
    """Return ``name`` in Unicode's composed form (NFC): Macs call folders by the decomposed one."""
    return unicodedata.normalize("NFC", name)


def plain(name: str) -> str:
    """Return ``name`` without what does not count when names are compared: case, underscores, spaces, Unicode form."""
    folded = unicodedata.normalize("NFD", name.replace("_", " ")).casefold()
    return composed(" ".join(folded.split()))


def similar_names_note(names: Iterable[str]) -> list[str]:
    """Return a note on classes whose names differ in nothing that counts when names are compared."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(plain(name), []).append(name)
    return [
        f"the names of classes {' and '.join(map(repr, group))} are alike, and are taken for different classes"
        for group in groups.values()
        if len(group) > 1
    ][:3]
