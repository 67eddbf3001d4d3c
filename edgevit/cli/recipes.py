"""``edgevit recipes``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from edgevit.cli import completion
from edgevit.cli.console import Result
from edgevit.recipes import load_recipe, observer_name, recipe_names, recipe_text


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="Print this one as TOML, to write one of your own.",
            show_default=False,
            autocompletion=completion.recipes,
        ),
    ] = None,
) -> Result:
    """List the calibration recipes, or print one as TOML."""
    return _list() if name is None else _show(name)


def _show(name: str) -> Result:
    text = recipe_text(name)
    return Result({"name": name, "recipe": load_recipe(name), "toml": text}, Text(text.rstrip("\n")))


def _list() -> Result:
    found = {name: load_recipe(name) for name in recipe_names()}
    table = Table("recipe", "samples", "observer", "description")
    for name, recipe in found.items():
        table.add_row(name, str(recipe.samples), observer_name(recipe.observer), recipe.description)
    return Result({"recipes": found}, table)
