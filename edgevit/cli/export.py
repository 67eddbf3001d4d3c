"""``edgevit export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from edgevit.bundle.store import Bundle
from edgevit.cli import values
from edgevit.cli.console import Result, progress
from edgevit.cli.options import (
    Activation,
    Crop,
    Filter,
    Heads,
    ImageSize,
    L2Normalize,
    Mean,
    Output,
    Overwrite,
    PreprocessFile,
    RawWeights,
    Resize,
    Root,
    Source,
    Std,
    StrictImages,
    collector,
    existing,
)
from edgevit.cli.tables import with_unreadable
from edgevit.graph.foreign import OnnxModel
from edgevit.graph.opening import Given
from edgevit.stages import export as stage
from edgevit.stages.images import ImageSource
from edgevit.stages.peers import peer_called
from edgevit.stages.source import load_source

_PANEL = "What an ONNX file does not say itself"


def _of_onnx(text: str, default: str) -> Any:  # noqa: ANN401 - as Typer declares it
    return typer.Option(help=text, show_default=default, rich_help_panel=_PANEL)


def export(
    source: Source,
    *,
    output: Output,
    data: Annotated[
        str | None, typer.Option(help="Images that the file is checked on.", show_default="images that EdgeViT has")
    ] = None,
    image_size: ImageSize = None,
    l2_normalize: L2Normalize = False,
    heads: Heads = None,
    activation: Activation = None,
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
    resize: Resize = None,
    crop: Crop = None,
    interpolation: Filter = None,
    labels: Annotated[
        Path | None, _of_onnx("Names of the classes, one a line, or JSON.", "config.json's, or numbers")
    ] = None,
    embedding: Annotated[
        bool, typer.Option("--embedding", help="It gives features, not logits.", rich_help_panel=_PANEL)
    ] = False,
    onnx_output: Annotated[str | None, _of_onnx("The output to use.", "logits, or the first")] = None,
    root: Root = None,
    strict: StrictImages = False,
    overwrite: Overwrite = False,
) -> Result:
    """Export a checkpoint, or an ONNX file of others, to float32 ONNX in a new bundle, checked on images."""
    Bundle.check_place(output, existing(overwrite=overwrite))  # before a checkpoint is fetched and read
    unreadable = collector(strict=strict)
    given = Given(
        **asdict(values.overrides(preprocess, mean, std, resize, crop, interpolation)),
        labels=labels,
        image_size=values.image_size(image_size),
        output=onnx_output,
        embedding=embedding,
        activation=values.activation_called(activation),
    )
    with progress() as bars:
        model = load_source(
            source, given, l2_normalize=l2_normalize, heads=heads, raw_weights=raw_weights, unfinished=unfinished
        )
        for note in model.notes:
            bars.note(note)
        images = ImageSource(
            data or stage.default_images(model.spec.channels),
            "test",
            unreadable,
            root=root,
            samples=stage.CHECKED,
        )
        bundle = stage.export(
            model,
            output,
            images,
            existing=existing(overwrite=overwrite),
            peer=peer_called(check_with, source, model, raw_weights=raw_weights) if check_with else None,
            progress=bars,
        )
    variant = bundle.variant("float32")
    equal = source if isinstance(model, OnnxModel) else "torch"
    if check_with:
        equal += f" and {check_with.partition(':')[0]}"
    made = f"{output}: float32 ONNX, {variant.bytes / 1e6:.1f} MB, equal to {equal} on images of {images.name}"
    return Result(
        data={
            "bundle": output,
            "variants": [{"name": variant.name, "path": output / variant.files[0].path, "bytes": variant.bytes}],
            "unreadable": sorted(unreadable.images),
        },
        text=with_unreadable(Text(f"{made}\n\nnext: edgevit quantize {output} --data IMAGES"), unreadable),
    )
