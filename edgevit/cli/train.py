"""``edgevit train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from edgevit.cli import completion
from edgevit.cli.console import Result, progress
from edgevit.cli.options import collector
from edgevit.cli.tables import with_unreadable
from edgevit.cli.train_recipe import Chosen, run_chosen
from edgevit.data.batches import Unreadable
from edgevit.data.sources import load_dataset
from edgevit.errors import EdgeViTError, InputError
from edgevit.shell import as_options, quoted
from edgevit.stages.recovery import recover
from edgevit.training.recipe import FINE_TUNING, FROM_SCRATCH, LINEAR_PROBE, RECOVERY, USUAL_MODEL, Mode
from edgevit.training.recipe_file import RunSettings, TorchDevice, written

_DEFAULTS = (FROM_SCRATCH, FINE_TUNING, LINEAR_PROBE)


def _option(name: str, text: str) -> object:
    """Return an option whose help says what it is where it is not given, for each of the three tasks."""
    defaults = "/".join(f"{getattr(recipe, name)}" for recipe in _DEFAULTS)
    return typer.Option(help=f"{text} [{defaults}]", show_default=False)


def train(
    *,
    data: Annotated[
        str | None,
        typer.Option(help="Images: a folder, a CSV file, or a built-in name.", autocompletion=completion.data_sets),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The run's folder.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="SOURCE", help="Fine-tune this checkpoint, as in edgevit export.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="Or train this architecture from random weights (edgevit models).",
            show_default=USUAL_MODEL,
            autocompletion=completion.architectures,
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="Train all weights, LayerNorms and biases, or a linear probe: the head alone.",
            show_default="full; with --token-budget norms",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="SOURCE|self", help="Learn from this checkpoint too; with --token-budget from itself."),
    ] = None,
    token_budget: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Learn to do with fewer tokens: so much of the multiply-adds is left. Needs no labels.",
        ),
    ] = None,
    epochs: Annotated[int | None, _option("epochs", "Passes over the images.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Train for so long instead.", show_default=f"{RECOVERY.minutes:g} with --token-budget"),
    ] = None,
    batch_size: Annotated[int | None, _option("batch_size", "Images per step, over all processes.")] = None,
    learning_rate: Annotated[float | None, _option("learning_rate", "Peak learning rate.")] = None,
    device: Annotated[TorchDevice | None, typer.Option(help="Where to train.", show_default="auto")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in the folder.")] = False,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Every other setting, as TOML; a RUN keeps its own in train.toml."),
    ] = None,
    print_recipe: Annotated[
        bool, typer.Option("--print-recipe", help="Print the recipe that these options give, and do not train.")
    ] = False,
) -> Result:
    """Train a ViT, or fine-tune one on your images; the run's folder is a SOURCE for 'edgevit export'.

    With --token-budget, --from takes a bundle too, and the RUN is for 'edgevit quantize --student'.

    Defaults in brackets are for random weights / fine-tuning (--from) / a linear probe (--from, --mode probe).
    """
    options = {
        "data": data,
        "source": source,
        "model": model,
        "teacher": teacher,
        "token_budget": token_budget,
        "device": device,
        "mode": mode,
        "epochs": epochs,
        "minutes": minutes,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    run = run_chosen(options, recipe)
    if print_recipe:
        text = written(run.settings, run.recipe)
        return Result(data={"recipe": text}, text=Text(text.rstrip("\n")))
    _check(run.settings)
    return _train(run, output, resume=resume)


def _train(run: Chosen, output: Path | None, *, resume: bool) -> Result:
    from edgevit.training import start as training  # loads torch, which --print-recipe does without
    from edgevit.training.distributed import is_main

    if output is None:
        raise InputError("there is no folder for the run", remedy="give one with --output")
    settings, recipe = run.settings, run.recipe
    unreadable = collector(strict=settings.strict)
    request = training.Request.of(settings, recipe, output, unreadable)
    if settings.merges:
        return _recover(request, settings, unreadable, resume=resume)
    begin = training.resume if resume else training.start
    with progress() as bars:
        if recipe.warmup_epochs < run.warmup:
            bars.note(f"warm-up ends with the last epoch: {recipe.warmup_epochs:g} epochs instead of {run.warmup:g}")
        result = begin(request, progress=bars)
    if not is_main():
        raise typer.Exit  # the first process speaks for all
    return _shown(result, output, settings, unreadable)


def _recover(request: Any, settings: RunSettings, unreadable: Unreadable, *, resume: bool) -> Result:  # noqa: ANN401
    from edgevit.training.distributed import is_main

    with progress() as bars:
        result = recover(request, settings.token_budget, settings.token_schedule, resume=resume, progress=bars)
    if not is_main():
        raise typer.Exit  # the first process speaks for all
    return _recovered(result, settings, unreadable)


def _recovered(result: Any, settings: RunSettings, unreadable: Unreadable) -> Result:  # noqa: ANN401
    before, after = result.before, result.after
    run = result.folder.path
    lines = [str(result.folder.model), str(result.folder.curves), ""]
    if before is not None and after is not None:
        lines = [
            f"On {result.images} images held out, against all tokens, before and after:",
            f"{result.measure} {before.likeness:.2%}, {after.likeness:.2%}; loss {before.loss:.4f}, {after.loss:.4f}",
            *lines,
        ]
        if after.loss >= before.loss:
            lines.insert(2, "Training did not pay: give more images or minutes, or a lower --learning-rate.")
    source = str(settings.source)
    bundle = source if source.endswith(".edgevit") else "BUNDLE"
    of_images = as_options({"data": settings.data, "root": settings.root})
    lines.append(f"next: edgevit quantize {quoted(bundle)} --student {quoted(run)}{of_images}")
    return Result(
        data={
            "run": str(run),
            "model": str(result.folder.model),
            "curves": str(result.folder.curves),
            "token_schedule": list(result.schedule),
            "images": result.images,
            "measure": result.measure,
            "before": None if before is None else {"loss": before.loss, result.measure: before.likeness},
            "after": None if after is None else {"loss": after.loss, result.measure: after.likeness},
            "unreadable": sorted(unreadable.images),
        },
        text=with_unreadable(Text("\n".join(lines)), unreadable.names),
    )


def _check(settings: RunSettings) -> None:
    """See to it that the settings go together."""
    if settings.source is not None and settings.model is not None:
        raise InputError("--from brings its own architecture", remedy="leave out --model, or --from")
    if settings.source is not None:
        return
    named = {"image_size": settings.image_size, "heads": settings.heads, "raw_weights": settings.raw_weights or None}
    for_checkpoints = [name for name, value in named.items() if value is not None]
    if settings.images.preprocess is not None:
        for_checkpoints.append("images.preprocess")
    if for_checkpoints:
        raise InputError(
            f"{for_checkpoints[0]} needs a checkpoint to fine-tune",
            remedy="name one with --from, or leave it out of the recipe",
        )


def _shown(result: Any, output: Path, settings: RunSettings, unreadable: Unreadable) -> Result:  # noqa: ANN401 - its module loads torch
    measured = f"Top-1 on the {result.images} images: {result.accuracy or 0:.2%}"
    if result.accuracy is None:
        measured = "Top-1 was not measured: there are no test or validation images, as in test/CLASS/image.jpg"
    files = [result.folder.model, result.folder.curves]
    if result.accuracy is not None:
        files.append(result.folder.confusion_chart)
    of_images = as_options({"data": settings.data, "root": settings.root} if _has_test_images(settings) else {})
    lines = (
        measured,
        *map(str, files),
        "",
        f"next: edgevit export {quoted(output)}{of_images} -o {quoted(Path(f'{output.resolve().name}.edgevit'))}",
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


def _has_test_images(settings: RunSettings) -> bool:
    """Return whether ``edgevit export`` finds images to compare on; else it takes those that come with EdgeViT."""
    try:
        root = None if settings.root is None else Path(settings.root)
        load_dataset(str(settings.data), split="test", root=root, labelled=False)
    except EdgeViTError:
        return False
    return True
