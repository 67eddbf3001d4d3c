"""``edgevit inspect``."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from edgevit.bundle.store import Bundle
from edgevit.bundle.summary import summary
from edgevit.cli.console import Result
from edgevit.cli.options import BundlePath
from edgevit.cli.tables import variants_table
from edgevit.report.table import float_layers


def inspect(bundle: BundlePath) -> Result:
    """Show what is in a bundle, and whether its files are whole; exit 1 if one is damaged."""
    opened = Bundle.open(bundle)
    found = summary(opened)
    spec = opened.manifest.spec
    answer = f"{spec.classes} classes" if spec.classes else f"an embedding of {spec.outputs} features"
    lines = [
        f"{found.name}: ViT, {spec.image_size[0]}x{spec.image_size[1]} images, patch {spec.patch_size[0]}, "
        f"width {spec.width}, depth {spec.depth}, {spec.heads} heads, {answer}",
        f"from {opened.manifest.provenance.source}, {opened.manifest.provenance.created_at}",
    ]
    damaged = [f"{variant.name}: {variant.problem}" for variant in found.variants if variant.problem]
    damaged += found.problems
    table = variants_table(opened, [variant.name for variant in opened.manifest.variants])
    stay_float = float_layers(opened.manifest.variants)
    return Result(
        data=found,
        text=Group(*(Text(line) for line in lines), table, *(Text(line) for line in (*stay_float, *damaged))),
        exit_code=1 if damaged else 0,
    )
