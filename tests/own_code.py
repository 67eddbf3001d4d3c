"""EdgeViT's own modules as syntax trees, for tests of who imports, reads or knows what."""

import ast
from functools import cache
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


each_module = pytest.mark.parametrize("path", MODULES, ids=called)
