"""Tables of variants, for people."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgevit.bundle.store import Bundle
from edgevit.data.batches import Unreadable
from edgevit.report.table import Row, headings, remarks, rows

_RIGHT = {"size", "change", "agreement", "p50"}


def variants_table(bundle: Bundle, names: Collection[str], columns: Collection[str] = Row._fields) -> RenderableType:
    """Return a table of the variants called ``names``, and what a reader must know beside it."""
    table = Table()
    above = headings(bundle.manifest)
    fields = [field for field in Row._fields if field in columns]
    for field in fields:
        table.add_column(getattr(above, field), justify="right" if field in _RIGHT else "left", no_wrap=True)
    for row in rows(bundle.manifest):
        if row.variant in names:
            table.add_row(*(Text(getattr(row, field)) for field in fields))
    told = [line for line in remarks(bundle.manifest) if line.partition(":")[0] in names]
    return Group(table, *(Text(line) for line in told))


def with_unreadable(shown: RenderableType, unreadable: Unreadable) -> RenderableType:
    """Add what could not be read, if anything."""
    return Group(shown, Text(unreadable.summary())) if len(unreadable) else shown
