"""``edgevit export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import edgevit
from edgevit.cli import values
from edgevit.cli.console import Result, progress
from edgevit.cli.options import (
    OF_ONNX,
    ActivationOption,
    ColoursOption,
    Crop,
    Filter,
    HeadsOption,
    ImageSize,
    L2Normalize,
    Mean,
    OnnxOutputs,
    OutputsOption,
    Overwrite,
    PreprocessFile,
    RawWeights,
    ResizeOption,
    Root,
    SourceArgument,
    Std,
    StrictImages,
)
from edgevit.cli.tables import with_unreadable
from edgevit.shell import quoted


def export(
    source: SourceArgument,
    *,
    output: OutputsOption,
    data: Annotated[
        str | None, typer.Option(help="Images that the file is checked on.", show_default="images that EdgeViT has")
    ] = None,
    image_size: ImageSize = None,
    l2_normalize: L2Normalize = False,
    heads: HeadsOption = None,
    activation: ActivationOption = None,
    raw_weights: RawWeights = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Take the averaged weights of a RUN that is not finished.")
    ] = False,
    check_with: Annotated[
        str | None,
        typer.Option(
            metavar="timm|transformers",
            help="Compare with the library that the model comes from, too; timm:NAME says which of its models it is.",
            show_default="not compared",
        ),
    ] = None,
    preprocess: PreprocessFile = None,
    mean: Mean = None,
    std: Std = None,
    resize: ResizeOption = None,
    crop: Crop = None,
    interpolation: Filter = None,
    colours: ColoursOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Names of the classes, one a line, or JSON; or of those that a CLIP's or SigLIP's text tower makes a "
            "classifier of (zero-shot).",
            show_default="config.json's, or numbers",
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="The sentence in which the text tower reads a label; may be given several times.",
            show_default="a photo of a {}",
        ),
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="NAME",
            help="The license that the weights are under: its SPDX identifier, or any name.",
            show_default="the one named beside them",
        ),
    ] = None,
    license_url: Annotated[str | None, typer.Option(metavar="URL", help="Where the text of --license is.")] = None,
    embedding: Annotated[
        bool, typer.Option("--embedding", help="It gives features, not logits.", rich_help_panel=OF_ONNX)
    ] = False,
    onnx_output: OnnxOutputs = None,
    root: Root = None,
    strict: StrictImages = False,
    overwrite: Overwrite = False,
) -> Result:
    """Export a checkpoint, or a third-party ONNX file, to float32 ONNX in a new bundle, checked on images."""
    how = values.overrides(preprocess, mean, std, resize, crop, interpolation, colours)
    bundle, outputs = values.bundle_and_outputs(output)
    with progress() as bars:
        made = edgevit.export(
            source,
            bundle,
            data=data,
            image_size=values.image_size(image_size),
            l2_normalize=l2_normalize,
            heads=heads,
            activation=values.activation_called(activation),
            raw_weights=raw_weights,
            unfinished=unfinished,
            check_with=check_with,
            preprocess=how.preprocess,
            mean=how.mean,
            std=how.std,
            resize=how.resize,
            crop=how.crop,
            interpolation=how.interpolation,
            colours=how.colours,
            labels=labels,
            template=template,
            license=license_,
            license_url=license_url,
            embedding=embedding,
            outputs=outputs,
            onnx_output=values.onnx_outputs(onnx_output),
            root=root,
            strict=strict,
            overwrite=overwrite,
            progress=bars,
        )
    size = made.bundle.variant("float32").bytes / 1e6
    said = f"{bundle}: float32 ONNX, {size:.1f} MB, equal to {' and '.join(made.equal_to)} on images of {made.images}"
    return Result(
        data=made.to_dict(),
        text=with_unreadable(Text(f"{said}\n\nnext: edgevit quantize {quoted(bundle)} --data IMAGES"), made.unreadable),
    )
