"""``edgevit build``."""

from __future__ import annotations

from typing import Annotated

import typer

import edgevit
from edgevit.bundle.manifest import PRECISIONS
from edgevit.cli import completion
from edgevit.cli.built import built, next_command
from edgevit.cli.console import Result, progress
from edgevit.cli.options import (
    BundlePath,
)
from edgevit.cli.values import token_budget_called
from edgevit.shell import quoted
from edgevit.stages.chosen import precision_called


def build(
    bundle: BundlePath,
    *,
    target: Annotated[
        str,
        typer.Option(
            help="What to build for: a name (edgevit targets) or a TOML file.", autocompletion=completion.targets
        ),
    ],
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"What to compute in: {', '.join(PRECISIONS)}.",
            show_default="the target's first; with --token-budget int8",
            autocompletion=completion.precisions,
        ),
    ] = None,
    token_budget: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Merge tokens as edgevit quantize decided for this budget.")
    ] = None,
) -> Result:
    """Compile one precision for a target."""
    with progress() as bars:
        wanted = precision_called(precision) if precision else None
        budget = token_budget_called(token_budget)
        made = edgevit.build(
            bundle,
            target=target,
            precision=wanted,
            token_budget=budget,  # type: ignore[arg-type]  # which build() checks
            progress=bars,
        )
    return built(made, next_command(made.bundle, made.names, f"edgevit benchmark {quoted(bundle)}"))
