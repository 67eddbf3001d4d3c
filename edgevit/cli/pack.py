"""``edgevit pack``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import edgevit
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, Variants
from edgevit.report.formats import megabytes


def pack(
    bundle: BundlePath,
    *,
    variant: Variants = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write.", show_default="NAME.edgevit.zip beside the bundle"),
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Sign the pack with the private Ed25519 key in this PEM file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the pack that is there.")] = False,
) -> Result:
    """Write a bundle, or some of its variants, as one file that apps load."""
    with progress() as bars:
        made = edgevit.pack(bundle, output, variants=variant or (), sign=sign, overwrite=overwrite, progress=bars)
    warning = None if made.license is None else made.license.warning()
    lines = [
        f"{made.path}: {megabytes(made.bytes)}, {', '.join(made.variants)}{', signed' * made.signed}",
        f"sha256 {made.sha256}",
        *([f"note: {warning}"] if warning else []),
        f"next:   edgevit verify {shlex.quote(str(made.path))}, on the device, too",
    ]
    return Result(data=made.to_dict(), text=Text("\n".join(lines)))
