"""Names of classes: how they are stored, and how they are compared."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from edgevit.errors import DataError

#: Kinds of characters that steer a terminal or hide, and those among them that join letters of words.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
#: No characters at all, which XML does not take.
_NONE = "\ufffe\uffff"


def can_be_shown(name: str) -> bool:
    """Return whether a terminal, a list of one name a line and XML can have each character of ``name``."""
    return not any(
        letter in _NONE or (unicodedata.category(letter) in _UNSEEN and letter not in _JOINERS) for letter in name
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
                remedy="take them out where the classes are named; for an ONNX file, --labels names others",
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
