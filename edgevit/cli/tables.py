"""Tables of variants, for people."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgevit.bundle.store import Bundle
from edgevit.report.table import DOUBT, Row, headings, remarks, rows

_RIGHT = {"size", "change", "agreement", "p50"}
_GAP = "   "
_WIDEST = 1000


def variants_table(bundle: Bundle, names: Collection[str], columns: Collection[str] = Row._fields) -> RenderableType:
    """Return a table of the variants called ``names``, and what a reader must know beside it."""
    fields = [field for field in Row._fields if field in columns]
    shown = [row for row in rows(bundle.manifest) if row.variant in names]
    told = map(Text, remarks(bundle.manifest, names))
    return Group(Fitting(headings(bundle.manifest), shown, fields), *told)


class Fitting:
    """The table of variants in the first of three forms that fits: in full, with intervals below, or stacked.

    No form leaves a figure out, nor cuts one.
    """

    def __init__(self, above: Row, shown: Sequence[Row], fields: Sequence[str]) -> None:
        self._above = above
        self._shown = shown
        self._fields = fields

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield from self._in_form(console, options)
        yield from doubt_explained(getattr(row, field) for row in self._shown for field in self._fields)

    def _in_form(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        for split in (False, True):
            table = self._table(split=split)
            if console.measure(table, options=options.update(width=_WIDEST)).maximum <= options.max_width:
                yield table
                return
        yield from self._stacked(options.max_width)

    def _table(self, *, split: bool) -> Table:
        table = Table()
        for field in self._fields:
            heading = _in_lines(getattr(self._above, field), split=split)
            table.add_column(heading, justify="right" if field in _RIGHT else "left", no_wrap=True)
        for row in self._shown:
            table.add_row(*(Text(_in_lines(getattr(row, field), split=split)) for field in self._fields))
        return table

    def _stacked(self, width: int) -> Iterator[Text]:
        """Yield each variant's name and verdict, and below them as many figures on a line as fit."""
        for row in self._shown:
            verdict = f": {row.verdict}" if "verdict" in self._fields else ""
            yield Text(f"{row.variant}{verdict}", style="bold", overflow="fold")
            figures = [
                f"{getattr(self._above, field).partition(' (')[0]} {getattr(row, field)}"
                for field in self._fields
                if field not in ("variant", "verdict")
            ]
            yield from (Text(line, overflow="fold") for line in _packed(figures, width))


def doubt_explained(cells: Iterable[str]) -> Iterator[Text]:
    """Yield what the mark of doubt means, if one of a table's ``cells`` has it."""
    if any(cell.endswith(f" {DOUBT}") for cell in cells):
        yield Text(f"{DOUBT} marks a time in doubt: the machine was disturbed, or the run too short")


def _in_lines(cell: str, *, split: bool) -> str:
    """Return a cell with what it has in brackets on a line of its own; a mark of doubt stays with the figure."""
    if not split:
        return cell
    figure, bracket, rest = cell.partition(" (")
    if not bracket:
        return cell.replace(", ", ",\n")
    inside, _, mark = rest.partition(")")
    return f"{figure}{mark}\n{inside}"


def _packed(figures: Sequence[str], width: int) -> Iterator[str]:
    line = ""
    for figure in figures:
        longer = f"{line}{_GAP}{figure}" if line else f"  {figure}"
        if line and cell_len(longer) > width:
            yield line
            longer = f"  {figure}"
        line = longer
    if line:
        yield line


def with_unreadable(shown: RenderableType, names: Sequence[str]) -> RenderableType:
    """Add one line on the images that could not be read, if there are any: how many, and the first ``names``."""
    if not names:
        return shown
    return Group(shown, Text(unreadable_images_note(names)))


def unreadable_images_note(names: Sequence[str]) -> str:
    """Return how many images could not be read, and the first ``names``."""
    first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"left out {len(names)} image{'s' * (len(names) > 1)} that cannot be read: {first}"
