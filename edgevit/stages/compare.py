"""``edgevit report A B``: several bundles, and the devices that they were measured on, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgevit.bundle.store import Bundle
from edgevit.errors import InputError
from edgevit.report.html import write_comparison

_MOST = 8


def compare(bundles: Sequence[Path], folder: Path) -> tuple[Path, Path]:
    """Write the page that compares ``bundles`` and its JSON into ``folder``; return their paths.

    Raises:
        InputError: if they are more than a page has room for.
        BundleError: if one is missing or damaged.
        MissingDependencyError: if jinja2 is not installed.
        StorageError: if the disk is full or not writable.
    """
    if len(bundles) > _MOST:
        raise InputError(f"{len(bundles)} bundles are more than a page has room for", remedy=f"compare {_MOST} of them")
    manifests = [Bundle.open(path).manifest for path in bundles]
    stems = [path.resolve().name.removesuffix(".edgevit") for path in bundles]
    titles = stems if len(set(stems)) == len(stems) else [path.as_posix() for path in bundles]
    return write_comparison(list(zip(titles, manifests, strict=True)), [str(path) for path in bundles], folder)
