"""``edgevit benchmark``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

import edgevit
from edgevit.bundle.pack import is_pack
from edgevit.cli import values
from edgevit.cli.console import Result, progress
from edgevit.cli.hosts import result_of_hosts
from edgevit.cli.measured import measured_beside
from edgevit.cli.options import BundlePath, EnergyFrom, HostPython, Hosts, Keep, Variants
from edgevit.cli.tables import variants_table
from edgevit.evaluation.load import Load
from edgevit.shell import quoted

_DEFAULT = Load()


def benchmark(
    bundle: BundlePath,
    *,
    variant: Variants = None,
    batch: Annotated[int, typer.Option(help="Images per inference.")] = _DEFAULT.batch,
    threads: Annotated[int, typer.Option(help="Threads; 0 uses all cores.")] = _DEFAULT.threads,
    duration: Annotated[float, typer.Option(help="Seconds of measuring, per variant.")] = _DEFAULT.duration_s,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Stop when the 95 % interval is within this fraction of the value, such as 2%, or after --duration.",
            show_default="--duration decides",
        ),
    ] = None,
    energy_from: EnergyFrom = _DEFAULT.energy_from,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Measure throughput over batch and streams, too, and name the knee.")
    ] = _DEFAULT.sweep,
    hosts: Hosts = None,
    python: HostPython = None,
    keep: Keep = False,
) -> Result:
    """Measure latency, speed-up over float32, memory and energy here; exit 1 if a variant does not run."""
    with progress() as bars:
        found = edgevit.benchmark(
            bundle,
            variants=variant or (),
            batch=batch,
            threads=threads,
            duration=duration,
            precision=values.share("--precision", precision),
            energy_from=energy_from,
            sweep=sweep,
            hosts=hosts or (),
            python=python,
            keep=keep,
            progress=bars,
        )
    if found.hosts:
        return result_of_hosts(found, found.hosts, ("size", "p50", "speedup", "verdict"))
    return Result(
        data=found.to_dict(),
        text=Group(
            variants_table(found.bundle, found.names, ("variant", "size", "p50", "speedup", "verdict")),
            *(Text(line) for line in measured_beside(found.latencies)),
            Text(f"\nnext: edgevit report {quoted(bundle)}{' -o site' * is_pack(bundle)}"),
        ),
        exit_code=0 if found.passed else 1,
    )
