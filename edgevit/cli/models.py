"""``edgevit models``."""

from __future__ import annotations

from rich.table import Table

from edgevit.cli.console import Result
from edgevit.models.spec import PRESETS


def models() -> Result:
    """List the models that can be named instead of a checkpoint."""
    table = Table("architecture", "image", "patch", "width", "depth", "heads", "classes")
    for name, spec in PRESETS.items():
        sizes = (spec.width, spec.depth, spec.heads, spec.classes)
        image = f"{spec.image_size[0]}x{spec.image_size[1]}x{spec.channels}"
        table.add_row(name, image, f"{spec.patch_size[0]}x{spec.patch_size[1]}", *map(str, sizes))
    return Result({"architectures": PRESETS}, table)
