"""``edgevit benchmark``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

import edgevit
from edgevit.bundle.pack import is_pack
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, Variants
from edgevit.cli.tables import variants_table
from edgevit.stages.benchmark import Load

_DEFAULT = Load()


def benchmark(
    bundle: BundlePath,
    *,
    variant: Variants = None,
    batch: Annotated[int, typer.Option(help="Images per inference.")] = _DEFAULT.batch,
    threads: Annotated[int, typer.Option(help="Threads; 0 takes all cores.")] = _DEFAULT.threads,
    duration: Annotated[float, typer.Option(help="Seconds of measuring, per variant.")] = _DEFAULT.duration_s,
) -> Result:
    """Measure latency, speed-up over float32, cold start and memory here; exit 1 if a variant does not run."""
    with progress() as bars:
        found = edgevit.benchmark(
            bundle, variants=variant or (), batch=batch, threads=threads, duration=duration, progress=bars
        )
    return Result(
        data=found.to_dict(),
        text=Group(
            variants_table(found.bundle, found.names, ("variant", "size", "p50", "speedup", "verdict")),
            Text(f"\nnext: edgevit report {bundle}{' -o site' * is_pack(bundle)}"),
        ),
        exit_code=0 if found.passed else 1,
    )
