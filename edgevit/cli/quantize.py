"""``edgevit quantize``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from edgevit.bundle.store import Bundle
from edgevit.cli.built import built
from edgevit.cli.console import Result, progress
from edgevit.cli.options import (
    BundlePath,
    PrecisionName,
    Root,
    StrictImages,
    chosen_targets,
    collector,
    precision_called,
)
from edgevit.recipes import load_recipe
from edgevit.stages.images import ImageSource
from edgevit.stages.quantize import quantize as stage

DialectName = Literal["auto", "onnxruntime", "openvino", "portable", "tensorrt", "tensorrt-legacy"]

#: The target for a dialect, where it is not called as that.
_TARGETS = {"onnxruntime": "x86-onnxruntime", "openvino": "x86-openvino"}


def quantize(
    bundle: BundlePath,
    *,
    precision: PrecisionName = "int8",
    data: Annotated[
        str | None,
        typer.Option(help="Calibration images, for int8, fp8 and fp16: a folder, a CSV file, or a built-in name."),
    ] = None,
    dialect: Annotated[DialectName, typer.Option(help="Whose kernels to reach; auto: all here.")] = "auto",
    recipe: Annotated[str, typer.Option(help="How to calibrate: a name (edgevit recipes) or a TOML file.")] = "default",
    samples: Annotated[int | None, typer.Option(min=1, help="Calibration images.", show_default="the recipe's")] = None,
    root: Root = None,
    strict: StrictImages = False,
) -> Result:
    """Add variants in INT8 or another precision, and show that they run on the kernels that they are made for."""
    wanted = precision_called(precision)
    chosen = load_recipe(recipe)
    unreadable = collector(strict=strict)
    images = data and ImageSource(
        data, "train", unreadable, root=root, samples=samples or chosen.samples, seed=chosen.seed
    )
    targets = chosen_targets(None if dialect == "auto" else [_TARGETS.get(dialect, dialect)])
    with progress() as bars:
        result = stage(
            Bundle.open(bundle),
            images or None,
            targets,
            wanted,
            observer=chosen.observer,
            split=chosen.split,
            progress=bars,
        )
    return built(result, unreadable, f"next: edgevit validate {bundle} --data {data or 'IMAGES'}")
