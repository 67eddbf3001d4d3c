"""``edgevit build``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from edgevit.bundle.store import Bundle
from edgevit.cli.built import built
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, PrecisionName, precision_called
from edgevit.data.batches import Unreadable
from edgevit.evaluation.worker import peak_rss_mb
from edgevit.stages.build import build as stage
from edgevit.stages.build import variant_name
from edgevit.stages.quantize import BuildResult
from edgevit.targets import load_target


def build(
    bundle: BundlePath,
    *,
    target: Annotated[str, typer.Option(help="What to build for: a name (edgevit targets) or a TOML file.")],
    precision: PrecisionName = "float32",
) -> Result:
    """Compile one precision for a target."""
    started = time.monotonic()
    wanted, profile = precision_called(precision), load_target(target)
    with progress() as bars:
        result = stage(Bundle.open(bundle), target, profile, wanted, progress=bars)
    made = BuildResult(result, (variant_name(profile, wanted),), time.monotonic() - started, peak_rss_mb())
    return built(made, Unreadable(), f"next: edgevit benchmark {bundle}")
