"""``edgevit models``."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from edgevit.cli.console import Result
from edgevit.models.spec import BUILTIN, PRESETS


def models() -> Result:
    """List the built-in models, and the architectures that can be trained."""
    trained = Table("built-in model", "what it is")
    for name, description in BUILTIN.items():
        trained.add_row(name, description)
    table = Table("architecture", "image", "patch", "width", "depth", "heads", "classes")
    for name, spec in PRESETS.items():
        sizes = (spec.width, spec.depth, spec.heads, spec.classes)
        image = f"{spec.image_size[0]}x{spec.image_size[1]}x{spec.channels}"
        table.add_row(name, image, f"{spec.patch_size[0]}x{spec.patch_size[1]}", *map(str, sizes))
    return Result({"built_in": BUILTIN, "architectures": PRESETS}, Group(trained, table))
