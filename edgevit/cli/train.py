"""``edgevit train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.text import Text

from edgevit.cli import completion, values
from edgevit.cli.console import Result, progress
from edgevit.cli.options import (
    CenterCrop,
    Data,
    Filter,
    Heads,
    ImageSize,
    Mean,
    PreprocessFile,
    RawWeights,
    Resize,
    Root,
    Std,
    StrictImages,
    collector,
)
from edgevit.cli.tables import with_unreadable
from edgevit.data.batches import Unreadable
from edgevit.errors import InputError
from edgevit.training import start as training
from edgevit.training.distributed import is_main
from edgevit.training.parts import TrainingData
from edgevit.training.recipe import FINE_TUNING, FROM_SCRATCH, LINEAR_PROBE, Autocast, Mode, Recipe, Sampling

T = TypeVar("T")


_PANELS = {
    "Schedule": ("epochs", "batch_size", "accumulate", "learning_rate", "layer_decay", "warmup_epochs", "patience"),
    "Regularisation": ("weight_decay", "label_smoothing", "clip_norm", "ema_decay", "stochastic_depth"),
    "Augmentation": ("crop", "randaugment", "magnitude", "shift", "flip", "erase", "mixup", "cutmix"),
    "Images": ("validation_share",),
    "Teacher": ("teacher_weight", "teacher_temperature"),
    "Machine": ("autocast", "seed"),
}


def _range(name: str) -> str:
    """Say what an option is where it is not given: from random weights, fine-tuning, linear probe."""
    return "/".join(f"{getattr(recipe, name)}" for recipe in (FROM_SCRATCH, FINE_TUNING, LINEAR_PROBE))


def _option(name: str, text: str) -> object:
    panel = next((panel for panel, names in _PANELS.items() if name in names), None)
    return typer.Option(help=f"{text} [{_range(name)}]", show_default=False, rich_help_panel=panel)


def train(
    *,
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")],
    source: Annotated[
        str | None, typer.Option("--from", metavar="SOURCE", help="Fine-tune this checkpoint, as in edgevit export.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="Or train this architecture from random weights (edgevit models).",
            show_default="vit-micro",
            autocompletion=completion.architectures,
        ),
    ] = None,
    image_size: ImageSize = None,
    heads: Heads = None,
    raw_weights: RawWeights = False,
    preprocess: PreprocessFile = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    center_crop: CenterCrop = None,
    interpolation: Filter = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in the folder.")] = False,
    mode: Annotated[Mode, typer.Option(help="Train all weights, or a linear probe: the head alone.")] = "full",
    teacher: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Learn from what this checkpoint says, too.", rich_help_panel="Teacher"),
    ] = None,
    epochs: Annotated[int | None, _option("epochs", "Passes over the images.")] = None,
    batch_size: Annotated[int | None, _option("batch_size", "Images per step, over all processes.")] = None,
    accumulate: Annotated[int | None, _option("accumulate", "Parts that a step is cut into, to save memory.")] = None,
    learning_rate: Annotated[float | None, _option("learning_rate", "Peak learning rate.")] = None,
    layer_decay: Annotated[float | None, _option("layer_decay", "Factor of the rate for each layer down.")] = None,
    weight_decay: Annotated[float | None, _option("weight_decay", "Decay of the weight matrices.")] = None,
    warmup_epochs: Annotated[float | None, _option("warmup_epochs", "Epochs until the peak is reached.")] = None,
    label_smoothing: Annotated[float | None, _option("label_smoothing", "Share of the target spread.")] = None,
    clip_norm: Annotated[float | None, _option("clip_norm", "Largest norm of the gradient.")] = None,
    ema_decay: Annotated[float | None, _option("ema_decay", "Decay of the averaged weights, per step.")] = None,
    crop: Annotated[float | None, _option("crop", "Smallest share of an image that is cut out.")] = None,
    randaugment: Annotated[int | None, _option("randaugment", "Random operations on each image.")] = None,
    magnitude: Annotated[float | None, _option("magnitude", "Their strength, 0 to 10.")] = None,
    shift: Annotated[int | None, _option("shift", "Largest random shift in pixels.")] = None,
    flip: Annotated[float | None, _option("flip", "Probability of a mirrored image.")] = None,
    erase: Annotated[float | None, _option("erase", "Probability of an erased rectangle.")] = None,
    mixup: Annotated[float | None, _option("mixup", "Alpha of mixup; 0 turns it off.")] = None,
    cutmix: Annotated[float | None, _option("cutmix", "Alpha of CutMix; 0 turns it off.")] = None,
    stochastic_depth: Annotated[
        float | None, _option("stochastic_depth", "Probability that the last layer is skipped.")
    ] = None,
    sampling: Annotated[
        Sampling | None,
        typer.Option(
            help="Shuffled, or balanced: classes come up equally often.",
            show_default="shuffled",
            rich_help_panel="Images",
        ),
    ] = None,
    patience: Annotated[
        int | None, _option("patience", "Epochs without a better validation until it ends; 0: no validation.")
    ] = None,
    validation_share: Annotated[
        float | None, _option("validation_share", "Held out of the training images, without a validation folder.")
    ] = None,
    teacher_weight: Annotated[float | None, _option("teacher_weight", "Share of the teacher in the loss.")] = None,
    teacher_temperature: Annotated[float | None, _option("teacher_temperature", "Softness of its targets.")] = None,
    autocast: Annotated[
        Autocast | None, _option("autocast", "Type of the matrix products; auto measures which is faster.")
    ] = None,
    seed: Annotated[int | None, _option("seed", "Of weights, order and augmentation.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=256,
            help="Processes that read images.",
            show_default="one per core, up to 8",
            rich_help_panel="Machine",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel="Machine")] = "auto",
    root: Root = None,
    strict: StrictImages = False,
) -> Result:
    """Train a ViT, or fine-tune one on your images; the run's folder is a SOURCE for 'edgevit export'.

    Defaults in brackets are for random weights / fine-tuning (--from) / a linear probe (--from, --mode probe).
    """
    given = {
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "layer_decay": layer_decay,
        "weight_decay": weight_decay,
        "warmup_epochs": warmup_epochs,
        "label_smoothing": label_smoothing,
        "clip_norm": clip_norm,
        "ema_decay": ema_decay,
        "crop": crop,
        "randaugment": randaugment,
        "magnitude": magnitude,
        "shift": shift,
        "flip": flip,
        "erase": erase,
        "mixup": mixup,
        "cutmix": cutmix,
        "stochastic_depth": stochastic_depth,
        "sampling": sampling,
        "patience": patience,
        "validation_share": validation_share,
        "teacher_weight": teacher_weight,
        "teacher_temperature": teacher_temperature,
        "autocast": autocast,
        "seed": seed,
    }
    if source is not None and model is not None:
        raise InputError("--from brings its own architecture", remedy="leave out --model, or --from")
    if source is None and image_size is not None:
        raise InputError(
            "--image-size is for a checkpoint that has learnt at another",
            remedy="name one with --from, or leave it out",
        )
    if source is None and raw_weights:
        raise InputError("--raw-weights is for a checkpoint", remedy="name one with --from, or leave it out")
    if source is None and preprocess is not None:
        raise InputError(
            "--preprocess is for a checkpoint, whose images were prepared somehow before",
            remedy="name one with --from, or say --mean, --std, --resize and --interpolation",
        )
    recipe = _recipe(_defaults(source, mode), given)
    unreadable = collector(strict=strict)
    warmup = _defaults(source, mode).warmup_epochs
    request = training.Request(
        data=TrainingData(data, unreadable, root),
        folder=output,
        recipe=recipe,
        model=model or "vit-micro",
        source=source,
        image_size=values.image_size(image_size),
        heads=heads,
        images=values.overrides(preprocess, mean, std, resize, center_crop, interpolation),
        teacher=teacher,
        raw_weights=raw_weights,
        workers=workers,
        device=device,
    )
    begin = training.resume if resume else training.start
    with progress() as bars:
        if warmup_epochs is None and recipe.warmup_epochs < warmup:
            bars.note(f"warm-up ends with the last epoch: {recipe.warmup_epochs:g} epochs instead of {warmup:g}")
        result = begin(request, progress=bars)
    if not is_main():
        raise typer.Exit  # the first process speaks for all
    return _shown(result, output, unreadable)


def _recipe(defaults: Recipe, given: dict[str, Any]) -> Recipe:
    """Return the recipe with what was given; a warm-up that was not is no longer than the run."""
    said = {name: value for name, value in given.items() if value is not None}
    if (epochs := said.get("epochs")) is not None and epochs >= 1:
        said.setdefault("warmup_epochs", min(defaults.warmup_epochs, epochs))
    return msgspec.structs.replace(defaults, **said)


def _defaults(source: str | None, mode: Mode) -> Recipe:
    if source is None:
        if mode == "probe":
            raise InputError("a probe needs a backbone that has learnt", remedy="name a checkpoint with --from")
        return FROM_SCRATCH
    return FINE_TUNING if mode == "full" else LINEAR_PROBE


def _shown(result: training.TrainingResult, output: Path, unreadable: Unreadable) -> Result:
    accuracy = "not measured" if result.accuracy is None else f"{result.accuracy:.2%}"
    files = [result.folder.model, result.folder.curves]
    if result.accuracy is not None:
        files.append(result.folder.confusion_chart)
    lines = (
        f"Top-1 on the {result.images or 'test'} images: {accuracy}",
        *map(str, files),
        "",
        f"next: edgevit export {output} -o {output.name}.edgevit",
    )
    return Result(
        data={
            "run": str(output),
            "model": str(result.folder.model),
            "curves": str(result.folder.curves),
            "confusion": str(result.folder.confusion) if result.accuracy is not None else None,
            "images": result.images,
            "accuracy": result.accuracy,
            "test_accuracy": result.accuracy if result.images == "test" else None,
            "unreadable": sorted(unreadable.images),
        },
        text=with_unreadable(Text("\n".join(lines)), unreadable.names),
    )
