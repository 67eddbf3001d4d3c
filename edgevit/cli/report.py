"""``edgevit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevit.bundle.store import Bundle
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath
from edgevit.report.consistency import consistent
from edgevit.report.headline import headline, missing
from edgevit.report.html import refuse_report, write_report
from edgevit.stages.report import PAGE
from edgevit.stages.report import report as stage


def report(
    bundle: BundlePath,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to.", show_default="the bundle's own")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace index.html and report.json there.")] = False,
) -> Result:
    """Write what was measured as one HTML page and its JSON."""
    opened = Bundle.open(bundle)
    if output is None:
        page = stage(opened).verify_extra(PAGE).path
    else:
        if not overwrite:
            refuse_report(output)
        page = write_report(opened.manifest, output)[0]
    if headline(consistent(opened.manifest)) is None:
        wanting = missing(opened.manifest)
        with progress() as bars:
            bars.note(" ".join([wanting["text"], *(f"Type: {line}" for line in wanting["commands"])]))
    return Result(data={"report": page, "json": page.with_name("report.json")}, text=str(page))
