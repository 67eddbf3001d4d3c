"""INT8 of models with outliers, by the default recipe: how near to float32, and which layers it returned to float.

    python benchmarks/outliers.py SOURCE... --planted CHECKPOINT --calibration DATA --evaluation DATA

    edgevit export dinov2_small -o dinov2_small_tokens_224.edgevit --output tokens    # one that is a bundle

A SOURCE is what ``edgevit export`` takes, or a bundle that it made. Of CHECKPOINT there are models with outliers
planted in its weights, too (tests/planted_outliers.py). Each is quantized for both CPU engines, and validated on other
images. Writes a Markdown table; those of other models that are in the file stay there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from command_line import command_line
from comparison import machine, write_section
from rich.progress import track

import edgevit
from edgevit.report.formats import NOTHING, decibels, nats, percent
from edgevit.stages.results import integer_share

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from planted_outliers import KINDS, plant_in

LISTED = 3  # layers, by their names
HEADER = "| model | INT8 for | agreement | KL (nats) | SQNR | multiply-adds in integers | float layers |"


def sources(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what to call each model, and where it is."""
    yield from ((Path(source).stem, source) for source in options.sources)
    if options.planted:
        for kind in KINDS:
            yield f"{Path(options.planted).stem}, {kind}", str(plant_in(options.planted, kind, folder))


def _listed(layers: list[str]) -> str:
    more = f" and {len(layers) - LISTED} more" if len(layers) > LISTED else ""
    return (", ".join(f"`{layer}`" for layer in layers[:LISTED]) or "none") + more


def measure(name: str, source: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """Return the lines of one model."""
    bundle = folder / "model.edgevit"
    shutil.rmtree(bundle, ignore_errors=True)
    if source.endswith(".edgevit"):
        shutil.copytree(source, bundle)
    else:
        edgevit.export(source, bundle, data=options.evaluation)
    made = edgevit.quantize(bundle, data=options.calibration, dialect=options.dialect)
    names = [variant.name for variant in made.variants if variant.precision == "int8"]
    lines = [
        f"| {name} | {each.removeprefix('int8-')} | {f'{NOTHING} | ' * 4}not made: {error.message} |"
        for each, error in made.failed.items()
    ]
    if not names:
        return lines
    found = edgevit.validate(bundle, data=options.evaluation, variants=names, samples=options.images).accuracies
    for variant in (made.bundle.variant(each) for each in names):
        accuracy = found[variant.name]
        share = integer_share(variant)
        cells = [
            name,
            variant.name.removeprefix("int8-"),
            NOTHING if accuracy.agreement is None else percent(accuracy.agreement, accuracy.images),
            NOTHING if accuracy.kl is None else nats(accuracy.kl),
            decibels(accuracy.sqnr_db),
            NOTHING if share is None else percent(share),
            _listed([layer.layer for layer in variant.fallback]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*")
    parser.add_argument("--planted", metavar="CHECKPOINT")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--dialect", default="auto", help="of INT8: both CPU engines' (%(default)s), or portable")
    parser.add_argument("--images", type=int, default=300, help="to measure on (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/outliers.md"))
    options = parser.parse_args()
    command = f"`{command_line()}`. {machine(0)}"
    names = ", ".join(Path(source).stem for source in options.sources or [options.planted])
    title = f"## {names}" + (f", {options.dialect}" if options.dialect != "auto" else "")
    lines = [title, "", command, "", HEADER, "| --- " * 7 + "|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, source in track(list(sources(options, folder)), description="Models"):
            lines += measure(title, source, options, folder)
            write_section(options.output, "INT8 of models with outliers", lines)
    print(options.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
