"""``edgevit doctor``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgevit.backends.probes import Finding
from edgevit.cli.console import Result, progress
from edgevit.stages.availability import Ability, Availability
from edgevit.stages.doctor import Diagnosis, ThisMachine, examine

EXIT_MISSING = 3
_BUILD = {"yes": "yes", "onnx": "as ONNX", "no": "no"}


def doctor(
    *,
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Try this engine alone; can be given again.", show_default="all"),
    ] = None,
) -> Result:
    """Try every engine, and say what can be built and run here, and how to add the rest; exit 3 if no engine runs."""
    with progress() as bars:
        found = examine(bars, engines=engine or ())
    return Result(data=found, text=_page(found), exit_code=0 if found.runs else EXIT_MISSING)


def _page(found: Diagnosis) -> Group:
    tables = (
        _table("engines", ("engine", "device", "version", "works"), map(_engine, found.engines)),
        _table("commands", ("command", "works"), map(_command, found.commands)),
        _table("targets", ("target", "build here", "run here"), map(_target, found.targets)),
    )
    shown = tables[:1] if not found.commands else tables
    return Group(Text("\n".join(_machine(found.machine))), *shown, Text("\n".join(_remedies(found))))


def _machine(machine: ThisMachine) -> Iterable[str]:
    here = machine.environment
    yield f"EdgeViT {machine.edgevit}, Python {here.python}, {here.os}"
    yield f"{here.machine}, {here.cpu}, {here.cores} cores: {', '.join(here.cpu_features) or 'no known features'}"
    if machine.memory_mb is not None:
        yield f"memory: {machine.memory_mb:,} MiB, {machine.memory_free_mb or 0:,} of them free"
    yield f"disk: {machine.disk_free_mb:,} MiB free here"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in (*columns, "why not"):
        table.add_column(column, no_wrap=column != "why not", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _engine(finding: Finding) -> tuple[str, ...]:
    device = finding.device
    if finding.compute_capability:
        device = f"{finding.device_name} ({finding.compute_capability})"
    works = "yes" if finding.runs else "builds only" if finding.builds else "no"
    return finding.name, device, finding.version or "", works, finding.problem or ""


def _command(ability: Ability) -> tuple[str, ...]:
    return ability.name, "yes" if ability.works else "no", ability.problem or ""


def _target(verdict: Availability) -> tuple[str, ...]:
    return verdict.name, _BUILD[verdict.build], "yes" if verdict.run else "no", verdict.problem or ""


def _remedies(found: Diagnosis) -> Iterable[str]:
    """Say what to type for each thing that is missing, once."""
    lacking: dict[str, list[str]] = {}
    for finding in found.engines:
        if finding.remedy:
            lacking.setdefault(finding.remedy, []).append(f"{finding.name} ({finding.device})")
    for ability in found.commands:
        if ability.remedy:
            lacking.setdefault(ability.remedy, []).append(f"edgevit {ability.name}")
    if lacking:
        yield "To add what is missing:"
    for remedy, what in lacking.items():
        yield f"  {', '.join(dict.fromkeys(what))}: {remedy}"
