"""``edgevit race``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

import edgevit
from edgevit.bundle.manifest import PRECISIONS, LimitEvidence
from edgevit.cli import completion, options
from edgevit.cli.console import Result, progress
from edgevit.cli.hosts import result_of_hosts
from edgevit.cli.options import (
    BundlePath,
    CalibrationData,
    Data,
    EnergyFrom,
    HostPython,
    Hosts,
    Keep,
    MaxAbsRel,
    MaxDrop,
    MaxEnergy,
    MinBoxAgreement,
    MinCosine,
    MinDelta1,
    MinMiou,
    RecipeName,
    Root,
    StrictImages,
    TimedBatch,
    TimedDuration,
    TimedThreads,
    TokenBudgets,
)
from edgevit.cli.values import token_budgets_called
from edgevit.cli.verdicts import conclusion, next_step, reasons
from edgevit.errors import StorageError
from edgevit.evaluation.load import Load
from edgevit.files import check_writable
from edgevit.report.formats import three_digits
from edgevit.report.junit import write_junit
from edgevit.stages.gate_limits import MIN_SPEEDUP
from edgevit.stages.race_result import RaceResult

_DEFAULT = Load()


def race(
    bundle: BundlePath,
    *,
    data: Data,
    target: Annotated[
        str, typer.Option("--target", help="What to race for: a name or a file.", autocompletion=completion.targets)
    ],
    precision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Beside float32; can be given again: {', '.join(PRECISIONS)}.",
            show_default="all that the target takes",
            autocompletion=completion.precisions,
        ),
    ] = None,
    token_budget: TokenBudgets = None,
    calibration_data: CalibrationData = None,
    recipe: RecipeName = "default",
    samples: Annotated[int | None, typer.Option(min=1, help="Number of images to draw.", show_default="all")] = None,
    max_drop: MaxDrop = None,
    max_kl: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Largest mean KL divergence of a classifier from float32, in nats; alone, it replaces --max-drop.",
            show_default="none",
            rich_help_panel=options.LIMITS,
        ),
    ] = None,
    min_cosine: MinCosine = None,
    min_miou: MinMiou = None,
    min_delta1: MinDelta1 = None,
    min_box_agreement: MinBoxAgreement = None,
    max_abs_rel: MaxAbsRel = None,
    min_speedup: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Smallest speed-up over float32 that passes; 0: none.",
            show_default=f"{MIN_SPEEDUP:g}",
            rich_help_panel=options.LIMITS,
        ),
    ] = None,
    max_p99: Annotated[
        float | None,
        typer.Option(min=0, help="Largest 99th percentile of latency, in ms.", rich_help_panel=options.LIMITS),
    ] = None,
    max_size: Annotated[
        float | None, typer.Option(min=0, help="Largest size of the files, in MB.", rich_help_panel=options.LIMITS)
    ] = None,
    max_memory: Annotated[
        float | None, typer.Option(min=0, help="Most memory while it runs, in MB.", rich_help_panel=options.LIMITS)
    ] = None,
    max_energy: MaxEnergy = None,
    batch: TimedBatch = _DEFAULT.batch,
    threads: TimedThreads = _DEFAULT.threads,
    duration: TimedDuration = _DEFAULT.duration_s,
    energy_from: EnergyFrom = _DEFAULT.energy_from,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the verdicts as JUnit XML, for CI.")] = None,
    root: Root = None,
    strict: StrictImages = False,
    hosts: Hosts = None,
    python: HostPython = None,
    keep: Keep = False,
) -> Result:
    """Make and measure all that a target takes, and name the fastest that is shown to pass; exit 1 if none is."""
    if junit is not None:
        check_writable(junit, remedy="give --junit a file in a folder that you may write to")
    with progress() as bars:
        found = edgevit.race(
            bundle,
            data=data,
            target=target,
            precisions=precision or (),  # type: ignore[arg-type]  # which race() checks
            token_budgets=token_budgets_called(token_budget),
            calibration_data=calibration_data,
            recipe=recipe,
            samples=samples,
            max_drop=max_drop,
            max_kl=max_kl,
            min_cosine=min_cosine,
            min_miou=min_miou,
            min_delta1=min_delta1,
            min_box_agreement=min_box_agreement,
            max_abs_rel=max_abs_rel,
            min_speedup=min_speedup,
            max_p99=max_p99,
            max_size=max_size,
            max_memory=max_memory,
            max_energy=max_energy,
            batch=batch,
            threads=threads,
            duration=duration,
            energy_from=energy_from,
            root=root,
            strict=strict,
            hosts=hosts or (),
            python=python,
            keep=keep,
            progress=bars,
        )
    lost = None if junit is None else _written(junit, found)
    if found.hosts:
        return result_of_hosts(found, found.hosts, ("p50", "speedup", "verdict"), lost)
    return Result(
        data=found.to_dict() | ({} if lost is None else {"junit_error": lost.message}),
        text=Group(
            _table(found),
            *map(Text, reasons(found.entrants)),
            *(Text(f"{name} is left out: {reason}") for name, reason in found.left_out.items()),
            Text(f"\n{conclusion(found.entrants, found.images)}\nnext: {next_step(bundle, found.entrants)}"),
            *([] if lost is None else [Text(f"error: {lost.message}\n  try: {lost.remedy}")]),
        ),
        exit_code=lost.exit_code if lost is not None else 0 if found.passed else 1,
    )


def _written(junit: Path, found: RaceResult) -> StorageError | None:
    """Write the verdicts; return why that failed, as they took minutes and are shown nevertheless."""
    verdicts, left_out = _verdicts(found)
    try:
        write_junit(junit, f"edgevit race {found.target}", verdicts, left_out)
    except StorageError as error:
        return error
    return None


def _verdicts(found: RaceResult) -> tuple[dict[str, tuple[LimitEvidence, ...]], dict[str, str]]:
    """Return what is shown of each variant, on each host where there are any, and what was left out."""
    if not found.hosts:
        return {each.name: each.evidence for each in found.entrants}, dict(found.left_out)
    verdicts = {f"{host.name}/{name}": tuple(those) for host in found.hosts for name, those in host.evidence.items()}
    for host in found.hosts:
        if host.problem is not None:
            verdicts[host.name] = (LimitEvidence(limit="raced", word="failed", reason=host.problem.message),)
    left_out = {f"{host.name}/{name}": why for host in found.hosts for name, why in host.left_out.items()}
    return verdicts, left_out


def _table(found: RaceResult) -> Table:
    table = Table("variant", "p50", "speed-up", "verdict")
    for each in found.entrants:
        latency = found.bundle.variant(each.name).latency
        speedup = None if latency is None else latency.speedup_vs_float32
        table.add_row(
            each.name,
            "-" if each.p50_ms is None else f"{three_digits(each.p50_ms)} ms",
            "-" if speedup is None else f"{speedup:.2f}x",
            each.word,
        )
    return table
