"""``edgevit recipes``."""

from __future__ import annotations

from rich.table import Table

from edgevit.cli.console import Result
from edgevit.recipes import load_recipe, observer_name, recipe_names


def recipes() -> Result:
    """List the calibration recipes."""
    found = {name: load_recipe(name) for name in recipe_names()}
    table = Table("recipe", "samples", "observer", "description")
    for name, recipe in found.items():
        table.add_row(name, str(recipe.samples), observer_name(recipe.observer), recipe.description)
    return Result({"recipes": found}, table)
