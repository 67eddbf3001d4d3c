"""``edgevit export``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from edgevit.cli import options
from edgevit.cli.console import Result, progress
from edgevit.cli.options import (
    ImageSize,
    L2Normalize,
    Output,
    Overwrite,
    Root,
    Source,
    StrictImages,
    collector,
    existing,
)
from edgevit.cli.tables import with_unreadable
from edgevit.models.loading import load_checkpoint
from edgevit.stages import export as stage
from edgevit.stages.images import ImageSource


def export(
    source: Source,
    *,
    output: Output,
    data: Annotated[
        str | None, typer.Option(help="Images that the file is checked on.", show_default="images that EdgeViT has")
    ] = None,
    image_size: ImageSize = None,
    l2_normalize: L2Normalize = False,
    root: Root = None,
    strict: StrictImages = False,
    overwrite: Overwrite = False,
) -> Result:
    """Export a checkpoint to float32 ONNX in a new bundle, checked against torch on images."""
    unreadable = collector(strict=strict)
    with progress() as bars:
        checkpoint = load_checkpoint(source, options.image_size(image_size))
        checkpoint = checkpoint.normalized() if l2_normalize else checkpoint
        for note in checkpoint.notes:
            bars.note(note)
        images = ImageSource(
            data or stage.default_images(checkpoint.spec.channels),
            "test",
            unreadable,
            root=root,
            samples=stage.CHECKED,
        )
        bundle = stage.export(checkpoint, output, images, existing=existing(overwrite=overwrite), progress=bars)
    variant = bundle.variant("float32")
    model = output / variant.files[0].path
    made = f"{output}: float32 ONNX, {variant.bytes / 1e6:.1f} MB, equal to torch on images of {images.name}"
    return Result(
        data={
            "bundle": output,
            "variants": [{"name": variant.name, "path": model, "bytes": variant.bytes}],
            "unreadable": sorted(unreadable.images),
        },
        text=with_unreadable(Text(f"{made}\n\nnext: edgevit quantize {output} --data IMAGES"), unreadable),
    )
