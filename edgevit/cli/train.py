"""``edgevit train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from edgevit.cli.console import Result, progress
from edgevit.cli.options import Data, Root, StrictImages, collector
from edgevit.cli.tables import with_unreadable
from edgevit.models.loading import load_checkpoint
from edgevit.models.spec import preset
from edgevit.training import start as training
from edgevit.training.recipe import Autocast, Recipe

_DEFAULTS = Recipe()


def train(
    *,
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")],
    model: Annotated[str, typer.Option(help="Architecture: vit-micro, vit-tiny, ... (edgevit models)")] = "vit-micro",
    source: Annotated[
        str | None, typer.Option("--from", help="Train on from this checkpoint.", show_default="random weights")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in the folder.")] = False,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = _DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = _DEFAULTS.batch_size,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = _DEFAULTS.learning_rate,
    weight_decay: Annotated[float, typer.Option(help="Decay of the weight matrices.")] = _DEFAULTS.weight_decay,
    warmup_epochs: Annotated[float, typer.Option(help="Epochs until the peak is reached.")] = _DEFAULTS.warmup_epochs,
    label_smoothing: Annotated[float, typer.Option(help="Share of the target spread.")] = _DEFAULTS.label_smoothing,
    shift: Annotated[int, typer.Option(help="Largest random shift in pixels.")] = _DEFAULTS.shift,
    flip: Annotated[float, typer.Option(help="Probability of a mirrored image.")] = _DEFAULTS.flip,
    erase: Annotated[float, typer.Option(help="Probability of an erased rectangle.")] = _DEFAULTS.erase,
    ema_decay: Annotated[float, typer.Option(help="Decay of the averaged weights, per step.")] = _DEFAULTS.ema_decay,
    autocast: Annotated[Autocast, typer.Option(help="Type of the matrix products.")] = _DEFAULTS.autocast,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = _DEFAULTS.seed,
    root: Root = None,
    strict: StrictImages = False,
) -> Result:
    """Train a ViT; the run's folder is a SOURCE for ``edgevit export``."""
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_epochs=warmup_epochs,
        label_smoothing=label_smoothing,
        shift=shift,
        flip=flip,
        erase=erase,
        ema_decay=ema_decay,
        autocast=autocast,
        seed=seed,
    )
    begin = training.resume if resume else training.start
    unreadable = collector(strict=strict)
    with progress() as bars:
        images = training.TrainingData(data, unreadable, root)
        initial = load_checkpoint(source) if source else training.fresh(preset(model), images, seed, progress=bars)
        result = begin(images, initial, output, recipe, progress=bars)
    accuracy = "not measured" if result.test_accuracy is None else f"{result.test_accuracy:.2%}"
    lines = (
        f"Top-1 on the test images: {accuracy}",
        str(result.folder.model),
        "",
        f"next: edgevit export {output} -o {output.name}.edgevit",
    )
    return Result(
        data={
            "run": str(output),
            "model": str(result.folder.model),
            "curves": str(result.folder.curves),
            "test_accuracy": result.test_accuracy,
            "unreadable": sorted(unreadable.images),
        },
        text=with_unreadable(Text("\n".join(lines)), unreadable),
    )
