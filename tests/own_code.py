"""EdgeViT's own modules as syntax trees, for tests of who imports, reads or knows what."""

import ast
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "edgevit"
MODULES = tuple(sorted(PACKAGE.rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    """Return what is in a module; several tests look at each."""
    return ast.parse(path.read_text())


def called(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


#: Tests look at the modules of a folder, or at one beside the folders, at once: there are too many for a test each.
each_room = pytest.mark.parametrize(
    "paths", [pytest.param(tuple(paths), id=room) for room, paths in groupby(MODULES, _room)]
)
