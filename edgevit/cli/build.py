"""``edgevit build``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from edgevit.bundle.store import Bundle
from edgevit.cli import completion, values
from edgevit.cli.built import built, following
from edgevit.cli.console import Result, progress
from edgevit.cli.options import (
    BundlePath,
)
from edgevit.data.batches import Unreadable
from edgevit.evaluation.worker import peak_rss_mb
from edgevit.stages.build import build as stage
from edgevit.stages.build import variant_name
from edgevit.stages.quantize import BuildResult
from edgevit.targets import load_target


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
            help=f"What to compute in: {', '.join(values.PRECISIONS)}.",
            show_default="the target's first",
            autocompletion=completion.precisions,
        ),
    ] = None,
) -> Result:
    """Compile one precision for a target."""
    started = time.monotonic()
    profile = load_target(target)
    wanted = values.precision_called(precision) if precision else profile.precisions[0]
    with progress() as bars:
        result = stage(Bundle.open(bundle), target, profile, wanted, progress=bars)
    made = BuildResult(result, (variant_name(profile, wanted),), time.monotonic() - started, peak_rss_mb())
    return built(made, Unreadable(), following(made.bundle, made.names, f"edgevit benchmark {bundle}"))
