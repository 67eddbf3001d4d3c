"""How fast EdgeViT's variants are beside its peers' files, in interleaved blocks of one run.

    python benchmarks/latency_vs_peers.py vit-small vit-tiny --calibration CSV [--threads 2] [--output FILE]

Takes checkpoints, or presets for random weights: values do not change the time of dense arithmetic. Writes a Markdown
table for each; those of other models that are in the file stay there. Ratios are medians over interleaved blocks with a
bootstrap interval, against EdgeViT's INT8 on the same backend (on onnxruntime for inductor, which EdgeViT does not
have). Needs ``benchmarks/requirements-peers.txt``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from command_line import command_line
from comparison import Entry, machine, markdown, missing_lines, prepare, write_section

from edgevit.bundle.manifest import Latency
from edgevit.data.batches import Strict
from edgevit.evaluation.candidates import Candidate
from edgevit.evaluation.latency import measure_latency
from edgevit.evaluation.load import Load
from edgevit.models.spec import PRESETS
from edgevit.recipes import load_recipe
from edgevit.report.formats import NOTHING, milliseconds, ratio_interval, speed_up
from edgevit.stages.images import DataSource
from edgevit.stages.precisions import merged_place

HEADER = ("what", "how", "backend", "p50", "p90", "its time over the baseline's", "95 % interval", "")
WORKER = (sys.executable, str(Path(__file__).with_name("inductor.py")))


def candidate(entry: Entry, budgets: Sequence[float]) -> Candidate:
    """Return what to time; all is compared with EdgeViT's INT8, of the last budget if there are any."""
    assert entry.model is not None
    backend = "onnxruntime" if entry.backend == "inductor" else entry.backend
    return Candidate(
        name=entry.name,
        backend=entry.backend,
        model=entry.model,
        settings=entry.settings,
        baseline=merged_place(f"EdgeViT int8-{backend}", budgets[-1] if budgets else None),
    )


def row(entry: Entry, found: Latency) -> list[str]:
    """Return the cells of one entry; a speed-up over INT8 below 1 is a time that many times as long."""
    speedup, interval = found.speedup_vs_float32, found.speedup_ci95
    return [
        entry.name,
        entry.description,
        entry.backend,
        milliseconds(found.p50_ms),
        milliseconds(found.p90_ms),
        NOTHING if speedup is None else speed_up(1 / speedup),
        NOTHING if interval is None else ratio_interval((1 / interval[1], 1 / interval[0])),
        "" if found.valid else f"? {found.invalid_reason}",
    ]


def measure(source: str, calibration: DataSource, options: argparse.Namespace) -> list[str]:
    """Return the section of one model."""
    with tempfile.TemporaryDirectory() as folder:
        bundle, entries = prepare(
            source,
            calibration,
            Path(folder),
            recipe=load_recipe(options.recipe),
            threads=options.threads,
            only=options.only,
            budgets=options.token_budget,
        )
        made = [entry for entry in entries if entry.model is not None]
        found = measure_latency(
            [candidate(entry, options.token_budget) for entry in made],
            Load(threads=options.threads, duration_s=options.duration),
            spec=bundle.manifest.model,
            command=WORKER,
        )
    rows = [row(entry, latency) for entry, latency in zip(made, found, strict=True)]
    merged = f", with a token budget of {options.token_budget[-1]:g}" if options.token_budget else ""
    random = " Random weights." if source in PRESETS else ""
    return [
        f"## {Path(source).stem}",
        "",
        f"`{command_line()}`; EdgeViT's recipe is `{options.recipe}`. "
        f"The baseline is its INT8 on the same engine{merged}.{random}",
        "",
        machine(options.threads),
        "",
        markdown(HEADER, rows),
        "",
        *missing_lines(entries),
    ]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--samples", type=int, default=32, help="calibration images (%(default)s)")
    parser.add_argument("--recipe", default="default", help="EdgeViT's own (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--duration", type=float, default=10, help="seconds per candidate, about (%(default)s)")
    parser.add_argument("--only", action="append", default=[], help="this peer; can be given again")
    parser.add_argument("--token-budget", type=float, action="append", default=[], help="can be given again")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/latency-vs-peers.md"))
    options = parser.parse_args()
    calibration = DataSource(options.calibration, "train", Strict(), samples=options.samples)
    for source in options.models:
        section = measure(source, calibration, options)
        write_section(options.output, "INT8 beside its peers: latency", section)
        print("\n".join(section))


if __name__ == "__main__":
    main()
