"""``edgevit benchmark``."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Group
from rich.text import Text

from edgevit.bundle.store import Bundle
from edgevit.cli.console import Result, progress
from edgevit.cli.options import BundlePath, Variants
from edgevit.cli.tables import variants_table
from edgevit.stages.benchmark import Load
from edgevit.stages.benchmark import benchmark as stage

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
    load = Load(batch=batch, threads=threads, duration_s=duration)
    with progress() as bars:
        result, names = stage(Bundle.open(bundle), load, variants=variant or (), progress=bars)
    latencies = [result.variant(name).latency for name in names]
    return Result(
        data={
            "environment": next(latency.environment for latency in latencies if latency),
            "variants": [_entry(result, name) for name in names],
        },
        text=Group(
            variants_table(result, names, ("variant", "size", "p50", "speedup", "verdict")),
            Text(f"\nnext: edgevit report {bundle}"),
        ),
        exit_code=0 if all(latency and latency.p50_ms is not None for latency in latencies) else 1,
    )


def _entry(bundle: Bundle, name: str) -> dict[str, object]:
    variant = bundle.variant(name)
    kernels, latency = msgspec.to_builtins(variant.kernels) or {}, msgspec.to_builtins(variant.latency) or {}
    latency.pop("environment", None)
    counts = {key: kernels.get(key) for key in ("linears", "integer_linears")}
    return {"name": name, "precision": variant.precision, "backend": variant.backend} | latency | counts
