"""``edgevit report``: what was measured of a bundle, and what is seen inside its models, as a page and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgevit.bundle.store import Bundle
from edgevit.progress import SILENT, Progress
from edgevit.report.html import write_report
from edgevit.stages.insights import look_into

PAGE = "report/index.html"


def report(bundle: Bundle, *, models: bool = True, progress: Progress = SILENT) -> Bundle:
    """Write the report into the bundle; without ``models`` none of them is run for it.

    Raises:
        MissingDependencyError: if jinja2 is not installed.
        StorageError: if the disk is full or not writable.
    """
    insights = look_into(bundle, models=models, progress=progress)

    def fill(folder: Path) -> Sequence[Path]:
        return write_report(bundle.manifest, folder, insights)

    return bundle.add_extra("report", fill)
