"""``edgevit pack``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import edgevit
from edgevit.api.pack import Format
from edgevit.cli import values
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, Variants
from edgevit.report.formats import megabytes
from edgevit.stages.pack import PackResult
from edgevit.stages.pack_triton import TritonResult
from edgevit.stages.pack_video import VideoResult


def pack(
    bundle: BundlePath,
    *,
    format: Annotated[  # noqa: A002
        Format,
        typer.Option(
            "--format",
            help="One file for EdgeViT's runtimes; a model repository (a folder) for Triton; or a folder with one "
            "variant for the video pipelines DeepStream and DL Streamer.",
        ),
    ] = "zip",
    variant: Variants = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file or folder to write.",
            show_default="NAME.edgevit.zip, or NAME.FORMAT, beside the bundle",
        ),
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Sign the pack with the private Ed25519 key in this PEM file.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What clients of Triton call the model.", show_default="the bundle's name")
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="The camera's frames, in pixels; for DeepStream and DL Streamer.",
            show_default="1920x1080",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was packed there.")] = False,
) -> Result:
    """Write a bundle, or some of its variants, as one file that apps load, or for another program."""
    with progress() as bars:
        made: PackResult | TritonResult | VideoResult = edgevit.pack(
            bundle,
            output,
            format=format,
            variants=variant or (),
            sign=sign,
            name=name,
            frame=values.frame(frame),
            overwrite=overwrite,
            progress=bars,
        )
    match made:
        case PackResult():
            lines = _file(made)
        case TritonResult():
            lines = _repository(made)
        case VideoResult():
            lines = _video(made)
    warning = None if made.license is None else made.license.warning()
    lines[-1:-1] = [f"note: {warning}"] if warning else []
    return Result(data=made.to_dict(), text=Text("\n".join(lines)))


def _file(made: PackResult) -> list[str]:
    return [
        f"{made.path}: {megabytes(made.bytes)}, {', '.join(made.variants)}{', signed' * made.signed}",
        f"sha256 {made.sha256}",
        f"next:   edgevit verify {shlex.quote(str(made.path))}, on the device, too",
    ]


def _repository(made: TritonResult) -> list[str]:
    first, *native = made.models
    lines = [f"{made.path}: {megabytes(made.bytes)}{', signed' * made.signed}"]
    lines.append(f"  {first.name}: {first.variant or 'the variant that serves best'}, by EdgeViT in Triton's Python")
    for model in native:
        lines.append(f"  {model.name}: by Triton's {model.backend}")
        lines += [f"    note: {note}" for note in model.notes]
    lines += [f"  no model of its own: {name}: {reason}" for name, reason in made.left_out.items()]
    where = f"--model-repository {shlex.quote(str(made.path))}"
    return [*lines, f"next:   tritonserver {where} --model-control-mode explicit --load-model {first.name}"]


def _video(made: VideoResult) -> list[str]:
    lines = [f"{made.path}: {megabytes(made.bytes)}, {made.variants[0]}", *(f"note: {note}" for note in made.notes)]
    return [*lines, f"next:   follow {made.path / 'README.md'}"]
