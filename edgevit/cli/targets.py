"""``edgevit targets``."""

from __future__ import annotations

from rich.table import Table

from edgevit.cli.console import Result
from edgevit.targets import load_target, target_names


def targets() -> Result:
    """List the devices that EdgeViT builds for."""
    found = {name: load_target(name) for name in target_names()}
    table = Table("target", "backend", "precisions", "description")
    for name, target in found.items():
        table.add_row(name, target.backend, ", ".join(target.precisions), target.description)
    return Result({"targets": found}, table)
