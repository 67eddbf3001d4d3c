"""Shell completion: the names that a command knows, and those in a bundle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import typer

from edgevit.bundle.manifest import Precision
from edgevit.bundle.store import Bundle
from edgevit.data.sources import BUILT_IN
from edgevit.errors import EdgeViTError
from edgevit.hosts.remembered import remembered
from edgevit.models.spec import BUILTIN, PRESETS
from edgevit.recipes import recipe_names
from edgevit.targets import load_profile, target_names


def targets(incomplete: str) -> list[str]:
    """Offer targets, and the editions of the one that is written out."""
    names = target_names()
    base, at, _ = incomplete.partition("@")
    if at and base in names:
        names = [f"{base}@{edition}" for edition in load_profile(base).edition_names()]
    return _beginning(names, incomplete)


def precisions(incomplete: str) -> list[str]:
    """Offer precisions."""
    return _beginning(get_args(Precision), incomplete)


def recipes(incomplete: str) -> list[str]:
    """Offer calibration recipes."""
    return _beginning(recipe_names(), incomplete)


def data_sets(incomplete: str) -> list[str]:
    """Offer the built-in sets of images, and files."""
    return _beginning(BUILT_IN, incomplete) + _files(incomplete)


def sources(incomplete: str) -> list[str]:
    """Offer the built-in models, and files."""
    return _beginning(BUILTIN, incomplete) + _files(incomplete)


def architectures(incomplete: str) -> list[str]:
    """Offer what can be trained."""
    return _beginning(PRESETS, incomplete)


def devices(incomplete: str) -> list[str]:
    """Offer the devices that have names."""
    try:
        return _beginning([each.name for each in remembered()], incomplete)
    except EdgeViTError:  # it says so when the command runs
        return []


def variants(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the variants of the bundle that is on the line."""
    # Before an option whose value is still missing, the bundle is not parsed yet.
    for place in (ctx.params.get("bundle"), *ctx.args):
        if place is not None and Path(place).is_dir():
            try:
                manifest = Bundle.open(Path(place)).manifest
            except (EdgeViTError, OSError):  # it says so when the command runs
                return []
            return _beginning([variant.name for variant in manifest.variants], incomplete)
    return []


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _files(incomplete: str) -> list[str]:
    """Return the files and folders that ``incomplete`` may become."""
    head, slash, start = incomplete.rpartition("/")
    try:
        found = sorted(Path(head + slash or ".").iterdir())
    except OSError:
        return []
    shown = [path for path in found if path.name.startswith(start) and (start or not path.name.startswith("."))]
    return [f"{head}{slash}{path.name}{'/' * path.is_dir()}" for path in shown]
