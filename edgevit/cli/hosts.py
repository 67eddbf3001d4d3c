"""What came of measuring on other devices: one table of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgevit.bundle.devices import measured_on
from edgevit.bundle.store import Bundle
from edgevit.cli.console import Result
from edgevit.cli.tables import doubt_explained, unreadable_images_note
from edgevit.errors import StorageError
from edgevit.report.table import headings, remarks, rows
from edgevit.shell import quoted
from edgevit.stages.host_result import HostResult


class MeasuredElsewhere(Protocol):
    """What a step returns."""

    @property
    def bundle(self) -> Bundle:
        """The bundle with the figures."""

    @property
    def passed(self) -> bool:
        """Whether all passed on all hosts."""

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""


def result_of_hosts(
    found: MeasuredElsewhere, hosts: Sequence[HostResult], columns: Sequence[str], lost: StorageError | None = None
) -> Result:
    """Return the result of a command that other devices ran; ``lost`` is why a file of it could not be written."""
    above = headings(found.bundle.manifest)
    shown: list[str] = []
    table = Table("host", "variant", *(getattr(above, column) for column in columns))
    for host in hosts:
        table.add_section()
        for cells in _cells(found.bundle, host, columns):
            table.add_row(*map(Text, cells))
            shown += cells
    lines = [line for host in hosts for line in _lines(found.bundle, host)]
    if not found.bundle.path.is_dir():
        lines.append("a pack is never changed: these figures are in no bundle")
    elif any(host.device is not None for host in hosts):
        lines.append(f"\nnext: edgevit inspect {quoted(Path(found.bundle.path))}")
    if lost is not None:
        lines.append(f"error: {lost.message}\n  try: {lost.remedy}")
    return Result(
        data=found.to_dict() | ({} if lost is None else {"junit_error": lost.message}),
        text=Group(table, *doubt_explained(shown), *map(Text, lines)),
        exit_code=lost.exit_code if lost is not None else 0 if found.passed else 1,
    )


def _cells(bundle: Bundle, host: HostResult, columns: Sequence[str]) -> Iterator[list[str]]:
    if host.device is None:
        yield [host.name, "", *("" for _ in columns[1:]), "not measured"]
        return
    for row in rows(measured_on(bundle.manifest, host.device)):
        if row.variant in host.names:
            yield [host.name, row.variant, *(getattr(row, column) for column in columns)]


def _lines(bundle: Bundle, host: HostResult) -> Iterator[str]:
    if host.problem is not None:
        yield f"{host.name}: error: {host.problem.message}\n  try: {host.problem.remedy}"
    if host.device is None:
        return
    seen = measured_on(bundle.manifest, host.device)
    yield from (f"{host.name}: {line}" for line in remarks(seen, host.names))
    yield from (
        f"{host.name}: {each.name}: answers to the golden images: {each.answers}"
        for each in host.device.variants
        if each.name in host.names and each.answers != "as exported"
    )
    if host.unreadable:
        yield f"{host.name}: {unreadable_images_note(host.unreadable)}"
    yield from (f"{host.name}: {name}: share missed: {why}" for name, why in host.shares_missed.items())
    for name, evidence in host.evidence.items():
        yield from (f"{host.name}: {name}: {each.limit} {each.word}: {each.reason}" for each in evidence)
    yield from (f"{host.name}: {name} is left out: {why}" for name, why in host.left_out.items())
    if host.evidence:
        yield f"{host.name}: {'nothing is shown to pass' if host.winner is None else f'{host.winner} wins'}"
