"""Finds and reads the data in ``export/`` and ``calibration/``: in a wheel, an editable install and a bare checkout."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from edgevit.errors import InputError, MissingDataError

Folder = Literal["export", "calibration"]
T = TypeVar("T")


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
        remedy="install it again: pip install --force-reinstall edgevit",
    )


def names(place: Path) -> list[str]:
    """Return the names of the TOML files in the folder ``place``, without their ending, in order."""
    return sorted(path.stem for path in place.glob("*.toml"))


def read(kind: str, place: Path, name: str, type_: type[T]) -> T:
    """Read ``place``/``name``.toml, or the file itself where ``name`` is the path of a TOML file.

    ``kind`` is what to call it in messages, such as "target".

    Raises:
        InputError: if there is none, or it is not a valid ``type_``; the message names the file and the field.

    """
    path = Path(name) if name.endswith(".toml") else place / f"{name}.toml"
    if not name.endswith(".toml") and name not in names(place):
        raise InputError(f"there is no {kind} '{name}'", remedy=nearest(name, names(place)))
    try:
        return msgspec.toml.decode(path.read_bytes(), type=type_)
    except OSError as error:
        raise InputError(f"cannot read the {kind} {path}: {error.strerror}", remedy="check the path") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a {kind}: {error}", remedy=f"correct it as in {place}") from error


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a remedy for the mistyped ``name``: those of the ``known`` ones that are like it, or all of them."""
    close = [each for each in known if name and each.startswith(name)] or get_close_matches(name, known)
    return f"use {' or '.join(close)}" if close else f"use one of {', '.join(known)}"
