"""Finds the data in ``export/`` and ``calibration/``: in a wheel, an editable install and a bare checkout."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from edgevit.errors import MissingDataError

Folder = Literal["export", "calibration"]


def folder(name: Folder) -> Path:
    """Return the path of ``export/`` or ``calibration/``.

    setuptools maps both into the package ``edgevit._resources``; in a checkout that is not installed they lie beside
    the package.

    Raises:
        MissingDataError: if this copy of EdgeViT lacks them.

    """
    spec = importlib.util.find_spec(f"edgevit._resources.{name}")
    installed = list(spec.submodule_search_locations or ()) if spec else []
    checkout = Path(__file__).resolve().parents[1] / name
    for path in (*map(Path, installed), checkout):
        if path.is_dir():
            return path
    raise MissingDataError(
        f"this copy of EdgeViT lacks its folder '{name}'",
        remedy="install it again, in the checkout: pip install --force-reinstall -e .",
    )


def toml_names(place: Path) -> list[str]:
    """Return the names of the TOML files in the folder ``place``, without their ending, in order."""
    return sorted(path.stem for path in place.glob("*.toml"))
