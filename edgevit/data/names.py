"""Names of classes, as they are kept and as they are compared."""

from __future__ import annotations

import unicodedata


def composed(name: str) -> str:
    """Return ``name`` in Unicode's composed form (NFC): Macs call folders by the decomposed one."""
    return unicodedata.normalize("NFC", name)


def plain(name: str) -> str:
    """Return ``name`` without what does not count when names are compared: case, underscores, spaces, Unicode form."""
    folded = unicodedata.normalize("NFD", name.replace("_", " ")).casefold()
    return composed(" ".join(folded.split()))
