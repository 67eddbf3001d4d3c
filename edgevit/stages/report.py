"""``edgevit report``: what a bundle's manifest says was measured, as a page and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgevit.bundle.store import Bundle
from edgevit.report.html import write_report

PAGE = "report/index.html"


def report(bundle: Bundle) -> Bundle:
    """Write the report into the bundle.

    Raises:
        MissingDependencyError: if jinja2 is not installed.
        StorageError: if the disk is full or not writable.
    """

    def fill(folder: Path) -> Sequence[Path]:
        return write_report(bundle.manifest, folder)

    return bundle.add_extra("report", fill)
