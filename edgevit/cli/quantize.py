"""``edgevit quantize``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

import edgevit
from edgevit.cli import completion
from edgevit.cli.built import built, next_command
from edgevit.cli.console import Result, progress
from edgevit.cli.options import (
    BundlePath,
    PrecisionName,
    RecipeIntegerShare,
    RecipeName,
    Root,
    StrictImages,
)
from edgevit.cli.values import token_budget_called
from edgevit.data.sources import BUILT_IN
from edgevit.quantization.emit import DIALECTS
from edgevit.report import formats
from edgevit.shell import as_options, quoted
from edgevit.stages.chosen import precision_called
from edgevit.stages.results import BuildResult

_LIMIT = "A limit to keep: layers return to float for it"


def quantize(
    bundle: BundlePath,
    *,
    precision: PrecisionName = "int8",
    data: Annotated[
        str | None,
        typer.Option(
            help="Calibration images, for int8, fp8 and fp16: a folder, a CSV file, or a built-in name.",
            autocompletion=completion.data_sets,
        ),
    ] = None,
    dialect: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"Q/DQ layout to write: {', '.join(('auto', *DIALECTS))}; auto: one per installed engine.",
        ),
    ] = "auto",
    recipe: RecipeName = "default",
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            help="Return layers to float until INT8 loses at most this many points of top-1 on held-out images.",
            show_default="the recipe's",
            rich_help_panel=_LIMIT,
        ),
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="The same for images without labels, and for logits among other outputs: KL(float32 || INT8) in nats.",
            rich_help_panel=_LIMIT,
        ),
    ] = None,
    min_cosine: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="The same for embedding models: mean cosine with float32's features.",
            rich_help_panel=_LIMIT,
        ),
    ] = None,
    min_integer_share: RecipeIntegerShare = None,
    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="Measure what each layer costs alone in INT8, and rank the layers."),
    ] = False,
    token_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Merge tokens that are alike until this share of the multiply-adds is left: 0.8, say; "
            "auto: the smallest that keeps the limit and is faster.",
        ),
    ] = None,
    student: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Weights that edgevit train --token-budget has trained to make up for merged tokens."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Number of calibration images.", show_default="the recipe's")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed for choosing them.", show_default="the recipe's")
    ] = None,
    root: Root = None,
    strict: StrictImages = False,
) -> Result:
    """Add variants in INT8 or another precision, and show that they run on the kernels that they are made for.

    With a limit, exit 1 if INT8 cannot keep it.
    """
    with progress() as bars:
        made = edgevit.quantize(
            bundle,
            data=data,
            precision=precision_called(precision),
            dialect=dialect,
            recipe=recipe,
            max_drop=max_drop,
            max_kl=max_kl,
            min_cosine=min_cosine,
            min_integer_share=min_integer_share,
            sensitivity=sensitivity,
            token_budget=token_budget_called(token_budget),
            student=student,
            samples=samples,
            seed=seed,
            root=root,
            strict=strict,
            progress=bars,
        )
    limits = {"max_drop": max_drop, "min_cosine": min_cosine, "min_integer_share": min_integer_share}
    shown = built(made, next_command(made.bundle, made.names, _validating(bundle, data, limits)))
    return replace(shown, text=Group(*_rankings(made), shown.text)) if sensitivity else shown


def _validating(bundle: Path, data: str | None, limits: dict[str, float | None]) -> str:
    """Return what to type next; images that were calibrated with would flatter what was made of them."""
    begin, kept = f"edgevit validate {quoted(bundle)}", as_options(limits)
    if data is None:
        return f"{begin} --data IMAGES{kept}"
    if data.partition(":")[0] in BUILT_IN:  # its test images are others than its training images
        return f"{begin} --data {quoted(data)}{kept}; its test images were not used for calibration"
    return f"{begin} --data IMAGES{kept}, with images that were not used for calibration"


def _rankings(result: BuildResult) -> Iterator[Table | Text]:
    """Return a table of what each layer costs alone, for each way to store activations."""
    for scheme, costs in result.sensitivity.items():
        table = Table("", "layer", "KL (nats)", "SQNR")
        for place, cost in enumerate(costs, start=1):
            table.add_row(str(place), Text(cost.layer), formats.nats(cost.kl), formats.decibels(cost.sqnr_db))
        yield Text(f"What each layer costs alone ({scheme} activations):")
        yield table
