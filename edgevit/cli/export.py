"""``edgevit export``."""

from __future__ import annotations

from typing import Annotated

import typer

from edgevit.cli.console import Result, progress
from edgevit.cli.options import Output, Overwrite, Root, StrictImages, collector, existing
from edgevit.models.loading import load_checkpoint
from edgevit.stages import export as stage
from edgevit.stages.images import ImageSource


def export(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A RUN, a .safetensors or .pth file, or a built-in model's name.")
    ],
    *,
    output: Output,
    data: Annotated[
        str | None, typer.Option(help="Images that the file is checked on.", show_default="images that EdgeViT has")
    ] = None,
    root: Root = None,
    strict: StrictImages = False,
    overwrite: Overwrite = False,
) -> Result:
    """Export a checkpoint to float32 ONNX in a new bundle, checked against torch on images."""
    with progress() as bars:
        checkpoint = load_checkpoint(source)
        for note in checkpoint.notes:
            bars.note(note)
        images = ImageSource(
            data or stage.default_images(checkpoint.spec.channels),
            "test",
            collector(strict=strict),
            root=root,
            samples=stage.CHECKED,
        )
        bundle = stage.export(checkpoint, output, images, existing=existing(overwrite=overwrite), progress=bars)
    variant = bundle.variant("float32")
    return Result(
        data={"bundle": output, "variants": [{"name": "float32", "path": output / "float32", "bytes": variant.bytes}]},
        text=f"{output}: float32 ONNX, {variant.bytes / 1e6:.1f} MB, equal to torch on {images.name}\n\n"
        f"next: edgevit quantize {output} --data IMAGES",
    )
