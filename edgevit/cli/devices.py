"""``edgevit devices``."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgevit.cli import completion
from edgevit.cli.console import Result
from edgevit.errors import InputError
from edgevit.hosts.remembered import Remembered, forget_host, remember, remembered
from edgevit.likeness import nearest
from edgevit.report.formats import printable

_MADE = "an environment is made"
_ACTIONS = ("list", "add", "remove")


def devices(
    action: Annotated[str, typer.Argument(metavar="[list|add|remove]", help="What to do.")] = "list",
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="The device.", show_default=False, autocompletion=completion.devices),
    ] = None,
    address: Annotated[
        str | None, typer.Argument(metavar="USER@HOST[:PORT]", help="Where it is, to add it.", show_default=False)
    ] = None,
    *,
    python: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The Python there to use.", show_default=_MADE),
    ] = None,
) -> Result:
    """Remember other devices by names, for --host of validate, benchmark and race."""
    if action not in _ACTIONS:
        raise InputError(f"edgevit devices knows no {action!r}", remedy=nearest(action, _ACTIONS))
    if action == "add":
        if name is None or address is None:
            raise InputError("what is to be added is missing", remedy="edgevit devices add NAME USER@HOST")
        return _shown(remember(name, address, python))
    if python is not None or address is not None or (action == "list") != (name is None):
        remedy = "edgevit devices" if action == "list" else "edgevit devices remove NAME"
        raise InputError(f"too much, or too little, is given to {action}", remedy=remedy)
    return _shown(remembered() if name is None else forget_host(name))


def _shown(found: tuple[Remembered, ...]) -> Result:
    table = Table("device", "address", "python")
    for each in found:
        table.add_row(*map(Text, (each.name, printable(each.address), printable(each.python or _MADE))))
    data = {"devices": [msgspec.to_builtins(each) for each in found]}
    if not found:
        return Result(data, "no device has a name yet: edgevit devices add NAME USER@HOST")
    return Result(data, Group(table))
