"""What each constant and each rewrite of EdgeViT's INT8 is worth, on any model and images.

    python benchmarks/ablations.py SOURCE --calibration DATA --evaluation DATA [--dialect NAME] [--only NAME]

Each line changes one thing and leaves the rest as it is. Writes a Markdown table: agreement, KL divergence and SQNR of
the logits against float32 on the evaluation images; other models that are in the file already stay there. Images are
observed once, and again where that is what changes.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from unittest import mock

import msgspec
from comparison import machine, write_section
from rich.progress import track

import edgevit
from edgevit.quantization.calibration import observers
from edgevit.quantization.rewrites import passes, smoothing
from edgevit.quantization.rewrites import per_token_scale as tokens
from edgevit.quantization.rounding import gptq as rounding
from edgevit.recipes import Recipe, load_recipe
from edgevit.report.formats import decibels, nats, percent

OUTPUT = Path("benchmarks/results/ablations.md")


class Change(NamedTuple):
    """One thing that is done otherwise: a constant in every module that has it, or a setting of the recipe.

    ``observer`` takes the place of the recipe's; one that clips goes without rewrites that change ranges.
    """

    name: str
    value: object
    modules: tuple[ModuleType, ...] = ()
    observer: str | None = None

    def __str__(self) -> str:
        if self == BASE:
            return self.name
        return f"`{self.name}` {self.value}" + (f" with `{self.observer}`" if self.observer and self.modules else "")


BASE = Change("as it is", "")
AVERAGE = "average-minmax"
CHANGES = (
    *(Change("HEADROOM", value, (smoothing, passes)) for value in (1.0, 1.2)),
    *(Change("DEVIATIONS", value, (smoothing,)) for value in (0.0, 3.0, 5.0)),
    *(Change("TOKEN_WEIGHT", value, (rounding,)) for value in (1, 30)),
    *(Change("LEAST", value, (tokens,)) for value in (0.5, 1.5)),
    *(Change("GROUP", value, (observers,), AVERAGE) for value in (1, 4, 8)),
    Change("per_token_scale", value=False),
    *(Change("residual_layers", value) for value in (0.0, 0.16)),
    *(Change("residual_token_layers", value) for value in (0.0, 0.25, 1.0)),
    *(Change("alpha", value) for value in ("off", 0.5)),
    *(Change("observer", value, observer=value) for value in ("moving-average", "percentile", "entropy", "mse")),
)


@contextmanager
def changed(change: Change, recipe: Recipe) -> Iterator[Recipe]:
    """Have ``change`` in force, and yield the recipe that goes with it."""
    settings = msgspec.to_builtins(recipe) | {"fallback": {}}  # what a change costs is to be seen
    if change.observer is not None:
        settings |= {"observer": change.observer, "rewrites": {}}
    elif change != BASE and not change.modules:
        settings["rewrites"] |= {change.name: change.value}
    with ExitStack() as stack:
        for module in change.modules:
            stack.enter_context(mock.patch.object(module, change.name, change.value))
        yield msgspec.convert(settings, Recipe)


def measure(exported: Path, change: Change, recipe: Recipe, options: argparse.Namespace, folder: Path) -> list[str]:
    """Return the cells of one line."""
    bundle = folder / "changed.edgevit"
    shutil.rmtree(bundle, ignore_errors=True)
    observed = folder / "observed.edgevit"
    shutil.copytree(observed if observed.exists() and observers not in change.modules else exported, bundle)
    with changed(change, recipe) as own:
        made = edgevit.quantize(bundle, data=options.calibration, dialect=options.dialect, recipe=own)
    if change == BASE:
        shutil.copytree(bundle, observed)
    (name,) = [variant.name for variant in made.variants if variant.precision == "int8"]
    found = edgevit.validate(bundle, data=options.evaluation, variants=[name]).accuracies[name]
    return [str(change), percent(found.agreement, found.images), nats(found.kl), decibels(found.sqnr_db)]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--dialect", default="onnxruntime")
    parser.add_argument("--only", action="append", default=[], help="this constant or setting; can be given again")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    recipe = load_recipe("default")
    changes = [BASE, *(change for change in CHANGES if not options.only or change.name in options.only)]
    title = f"## {Path(options.source).stem}, {options.dialect}"
    arguments = shlex.join(sys.argv[1:])
    lines = [title, "", f"`python benchmarks/ablations.py {arguments}`. {machine(0)}", ""]
    lines += ["| | agreement | KL (nats) | SQNR |", "| --- " * 4 + "|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exported = edgevit.export(options.source, folder / "float32.edgevit", data=options.evaluation).bundle.path
        for change in track(changes, description=title):
            lines.append(f"| {' | '.join(measure(exported, change, recipe, options, folder))} |")
            write_section(options.output, "Ablations", lines)  # it may take hours
    print(options.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
