"""``edgevit pack``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

import edgevit
from edgevit.api.pack import Format
from edgevit.cli import completion, values
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, Root, StrictImages, Variants
from edgevit.errors import InputError
from edgevit.mobile import MobileFormat
from edgevit.report.formats import decibels, megabytes, percent
from edgevit.shell import quoted
from edgevit.stages.pack import PackResult
from edgevit.stages.pack_triton import TritonResult
from edgevit.stages.pack_video import VideoResult

if TYPE_CHECKING:
    from edgevit.mobile.hand_over import HandedModel
    from edgevit.stages.hand_over_result import HandOverResult

_PHONES = "For a phone's engine"


def pack(
    bundle: BundlePath,
    *,
    format: Annotated[  # noqa: A002
        Literal[Format, MobileFormat],
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="zip: one file for EdgeViT's runtimes; triton: a model repository; deepstream, dlstreamer: one "
            "variant for a video pipeline; coreml, executorch, litert, ncnn: the model for an engine of phones, "
            "converted from float32. All but zip are folders.",
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
        str | None,
        typer.Option(
            help="What clients of Triton call the model.",
            show_default="the bundle's name",
            rich_help_panel="For Triton",
        ),
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="The camera's frames, in pixels.",
            show_default="1920x1080",
            rich_help_panel="For a video pipeline",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was packed there.")] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="Calibration images for INT8 by the engine's own quantizer: a folder, a CSV file, or a built-in name.",
            autocompletion=completion.data_sets,
            rich_help_panel=_PHONES,
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Number of calibration images.", show_default="128", rich_help_panel=_PHONES),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Random seed for choosing them.", show_default="0", rich_help_panel=_PHONES),
    ] = None,
    root: Root = None,
    strict: StrictImages = False,
) -> Result:
    """Write a bundle, or some of its variants, as one file that apps load, or for another program."""
    of_images = {"--samples": samples is not None, "--seed": seed is not None, "--root": root, "--strict": strict}
    if format == "coreml" or format == "executorch" or format == "litert" or format == "ncnn":
        of_others = {"--variant": variant, "--sign": sign, "--name": name, "--frame": frame}
        _refuse([option for option, given in of_others.items() if given is not None], f"with --format {format}")
        if data is None:
            _refuse([option for option, given in of_images.items() if given], "without --data")
        with progress() as bars:
            handed = edgevit.pack_mobile(
                bundle,
                output,
                format=format,
                data=data,
                samples=128 if samples is None else samples,
                seed=seed or 0,
                root=root,
                strict=strict,
                overwrite=overwrite,
                progress=bars,
            )
        return Result(data=handed.to_dict(), text=Text("\n".join(_handed(handed))))
    of_phones = {"--data": data is not None, **of_images}
    _refuse([option for option, given in of_phones.items() if given], f"with --format {format}")
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
        f"next:   edgevit verify {quoted(made.path)}, on the device, too",
    ]


def _repository(made: TritonResult) -> list[str]:
    first, *native = made.models
    lines = [f"{made.path}: {megabytes(made.bytes)}{', signed' * made.signed}"]
    lines.append(f"  {first.name}: {first.variant or 'the variant that serves best'}, by EdgeViT in Triton's Python")
    for model in native:
        lines.append(f"  {model.name}: by Triton's {model.backend}")
        lines += [f"    note: {note}" for note in model.notes]
    lines += [f"  no model of its own: {name}: {reason}" for name, reason in made.left_out.items()]
    where = f"--model-repository {quoted(made.path)}"
    return [*lines, f"next:   tritonserver {where} --model-control-mode explicit --load-model {first.name}"]


def _video(made: VideoResult) -> list[str]:
    lines = [f"{made.path}: {megabytes(made.bytes)}, {made.variants[0]}", *(f"note: {note}" for note in made.notes)]
    return [*lines, f"next:   follow {made.path / 'README.md'}"]


def _refuse(options: list[str], where: str) -> None:
    if options:
        raise InputError(f"{options[0]} does not go {where}", remedy=f"leave {options[0]} out")


def _handed(made: HandOverResult) -> list[str]:
    warning = None if made.license is None else made.license.warning()
    return [
        f"{made.path}: {made.content.format}, {' and '.join(made.content.rewrites) or 'as it was'}",
        *(f"  {model.model}: {megabytes(model.bytes)}, {_checked(model)}" for model in made.content.models),
        *(f"note: {note}" for note in (*made.notes, *([warning] if warning else []))),
        f"next:   {made.path / 'edgevit.json'} says how images are prepared, and what was checked",
    ]


def _checked(model: HandedModel) -> str:
    check = model.check
    if check is None:
        return "not run"
    said = "as exported" if check.difference is None else f"within {check.difference:.2g} of float32 on golden images"
    if check.images:
        agreeing = check.images_agreement
        same = "" if agreeing is None else f"{percent(agreeing, check.images)} with its class, "
        said += f"; of {check.images} others {same}SQNR {decibels(check.images_sqnr_db)}"
    return said
