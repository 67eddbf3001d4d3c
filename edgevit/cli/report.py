"""``edgevit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevit.bundle.store import Bundle
from edgevit.cli.console import Result, progress
from edgevit.errors import InputError
from edgevit.report.consistency import consistent
from edgevit.report.headline import headline, missing
from edgevit.report.html import refuse_report, write_report
from edgevit.stages.compare import compare
from edgevit.stages.insights import look_into
from edgevit.stages.report import PAGE
from edgevit.stages.report import report as stage


def report(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="One bundle, or several to compare.")],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to.", show_default="the bundle's own")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace index.html and its JSON there.")] = False,
    figures_only: Annotated[
        bool, typer.Option("--figures-only", help="Run no model: no attention maps, no error of each layer.")
    ] = False,
) -> Result:
    """Write what was measured as one HTML page and its JSON; of several bundles, side by side."""
    if output is not None and not overwrite:
        refuse_report(output)
    if len(bundles) > 1:
        if output is None:
            raise InputError(
                "there is no place for the comparison of several bundles", remedy="say where to write it: -o FOLDER"
            )
        page, data = compare(bundles, output)
        return Result(data={"report": page, "json": data}, text=str(page))
    opened = Bundle.open(bundles[0])
    with progress() as bars:
        if output is None:
            page = stage(opened, models=not figures_only, progress=bars).verify_extra(PAGE).path
        else:
            insights = look_into(opened, models=not figures_only, progress=bars)
            page = write_report(opened.manifest, output, insights)[0]
        if headline(consistent(opened.manifest)) is None:
            wanting = missing(opened.manifest, bundles[0])
            for line in (wanting["text"], *(f"next: {command}" for command in wanting["commands"])):
                bars.note(line)
    return Result(data={"report": page, "json": page.with_name("report.json")}, text=str(page))
