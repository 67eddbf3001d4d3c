"""Lists the images in a folder, at any depth, and what is left out and why."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from edgevit.data.formats import HEAD, conversion_hint, is_image, named_as
from edgevit.data.images import SUFFIXES
from edgevit.errors import DataError

_SHOWN = 3


@dataclass(slots=True)
class FoundFiles:
    """The images below a folder, in the order in which torchvision's ImageFolder has them, and what else lies there."""

    images: list[Path] = field(default_factory=list)
    nested: list[Path] = field(default_factory=list)
    """Folders below the first whose images are taken."""
    unread: list[Path] = field(default_factory=list)
    """Images in formats that are not read, by their names."""
    unnamed: list[Path] = field(default_factory=list)
    """Images by their content whose names do not end as an image's."""
    hidden: list[Path] = field(default_factory=list)
    """Files named as images whose names, or whose folder's, begin with a dot."""
    repeated: list[Path] = field(default_factory=list)
    """Links to folders that were read before."""

    def add(self, other: FoundFiles) -> None:
        """Take what ``other`` has that is left out."""
        self.unread += other.unread
        self.unnamed += other.unnamed
        self.hidden += other.hidden
        self.repeated += other.repeated

    def notes(self) -> list[str]:
        """Return a line for each kind of thing that is left out."""
        found = []
        for name in sorted({named_as(path) or "" for path in self.unread}):
            paths = [path for path in self.unread if named_as(path) == name]
            images = f"{_counted(paths, 'image')} in {name}, which EdgeViT does not read"
            found.append(f"left out {images}: {first_shown(paths)}; {conversion_hint(name, paths[0].name)}")
        if self.unnamed:
            images = _counted(self.unnamed, "image")
            found.append(
                f"left out {images} whose names do not end as an image's (.jpg, ...): {first_shown(self.unnamed)}"
            )
        if self.hidden:
            found.append(f"left out {_counted(self.hidden, 'hidden image')}: {first_shown(self.hidden)}")
        if self.repeated:
            links = _counted(self.repeated, "link")
            found.append(f"left out {links} to folders that were read already: {first_shown(self.repeated)}")
        return found


def walk(folder: Path) -> FoundFiles:
    """Return what lies in ``folder`` at any depth; links are followed, each folder is read once.

    Raises:
        DataError: if a folder cannot be listed.
    """
    found = FoundFiles()
    folders: list[Path] = []
    _gather(folder, set(), folders, found)
    for place in sorted(folders, key=str):  # torchvision's order: by folder, then by name
        images = [path for path in children(place) if path.suffix.lower() in SUFFIXES and not path.is_dir()]
        found.images += sorted(path for path in images if not path.name.startswith("."))
        if place != folder and any(not path.name.startswith(".") for path in images):
            found.nested.append(place)
    return found


def children(folder: Path) -> list[Path]:
    """Return what lies in ``folder``, sorted by name.

    Raises:
        DataError: if it cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror}", remedy=f"make {folder} readable for you") from error


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in ``folder`` that are not hidden, sorted by name."""
    return [path for path in children(folder) if path.is_dir() and not path.name.startswith(".")]


def first_shown(paths: list[Path]) -> str:
    """Return the first of ``paths``."""
    return ", ".join(map(str, paths[:_SHOWN])) + (", ..." if len(paths) > _SHOWN else "")


def _gather(start: Path, seen: set[str], folders: list[Path], found: FoundFiles) -> None:
    """Append each folder at and below ``start`` to ``folders`` once, and what is left out to ``found``."""
    waiting = [(start, False)]
    while waiting:
        folder, hidden = waiting.pop()
        place = os.path.realpath(folder)
        if place in seen:
            found.repeated.append(folder)
            continue
        seen.add(place)
        if not hidden:
            folders.append(folder)
        below = []
        for path in children(folder):
            concealed = hidden or path.name.startswith(".")
            if path.is_dir():
                below.append((path, concealed))
            elif concealed and path.suffix.lower() in SUFFIXES:
                found.hidden.append(path)
            elif not concealed and named_as(path) is not None:
                found.unread.append(path)
            elif not concealed and path.suffix.lower() not in SUFFIXES and _looks_like_an_image(path):
                found.unnamed.append(path)
        waiting += reversed(below)


def _looks_like_an_image(path: Path) -> bool:
    try:
        if not path.is_file():  # which does not open a pipe
            return False
        with path.open("rb") as stream:
            return is_image(stream.read(HEAD))
    except OSError:
        return False


def _counted(paths: list[Path], name: str) -> str:
    return f"{len(paths)} {name}{'s' * (len(paths) > 1)}"
