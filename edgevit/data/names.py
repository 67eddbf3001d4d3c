"""Names of classes: how they are stored, and how they are compared."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


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
