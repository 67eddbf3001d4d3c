"""How near to float32 EdgeViT's INT8 and its peers' stay, on the same model and images.

    python benchmarks/accuracy_vs_peers.py CHECKPOINT --calibration CSV --evaluation CSV [--output FILE]

Writes a Markdown table. Needs ``benchmarks/requirements-peers.txt`` for the peers.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from command_line import command_line
from comparison import Entry, machine, markdown, missing_lines, prepare
from inductor import open_session
from numpy.typing import NDArray

from edgevit.bundle.manifest import Accuracy
from edgevit.data.batches import Strict, batches
from edgevit.data.labels import map_labels
from edgevit.data.preprocess import Preprocess
from edgevit.evaluation.accuracy import measure_accuracy
from edgevit.files import write_atomically
from edgevit.recipes import load_recipe
from edgevit.report.formats import NOTHING, nats, percent
from edgevit.stages.images import DataSource

HEADER = ("what", "how", "agreement", "KL (nats)", "SQNR", "top-1", "seconds to make")
REFERENCE = "EdgeViT float32"


def logits_of(entry: Entry, images: DataSource, preprocess: Preprocess, threads: int) -> NDArray[np.float32]:
    """Return the logits (N, classes) of all images, one at a time."""
    assert entry.model is not None

    def results() -> Iterator[NDArray[np.float32]]:
        with ExitStack() as stack:
            session = stack.enter_context(open_session(entry.backend, entry.model, threads, entry.settings))
            for batch in batches(images.load(), preprocess, batch_size=1, unreadable=Strict()):
                yield session.infer(batch.images)

    return np.concatenate(list(results()))


def row(entry: Entry, found: Accuracy) -> list[str]:
    """Return the cells of one entry."""
    sqnr = NOTHING if found.sqnr_db is None or entry.name == REFERENCE else f"{found.sqnr_db:.1f} dB"
    seconds = NOTHING if entry.seconds is None else f"{entry.seconds:.0f}"
    return [
        entry.name,
        entry.description,
        percent(found.agreement, found.images),
        nats(found.kl),
        sqnr,
        percent(found.top1, found.images),
        seconds,
    ]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--samples", type=int, default=128, help="calibration images (%(default)s)")
    parser.add_argument("--recipe", default="default", help="EdgeViT's own (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="append", default=[], help="this peer; can be given again")
    parser.add_argument("--token-budget", type=float, action="append", default=[], help="can be given again")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/accuracy-vs-peers.md"))
    options = parser.parse_args()
    calibration = DataSource(options.calibration, "train", Strict(), samples=options.samples)
    evaluation = DataSource(options.evaluation, "test", Strict())
    with tempfile.TemporaryDirectory() as folder:
        bundle, entries = prepare(
            options.checkpoint,
            calibration,
            Path(folder),
            recipe=load_recipe(options.recipe),
            threads=options.threads,
            only=options.only,
            budgets=options.token_budget,
        )
        preprocess = bundle.manifest.preprocess
        made = [entry for entry in entries if entry.model is not None]
        logits = {entry.name: logits_of(entry, evaluation, preprocess, options.threads) for entry in made}
    dataset = evaluation.load()
    labels = map_labels(dataset, bundle.manifest.labels)
    rows = [
        row(entry, measure_accuracy(logits[REFERENCE], logits[entry.name], labels, data="", data_sha256=""))
        for entry in made
    ]
    text = [
        "# INT8 beside its peers: accuracy",
        "",
        f"Written by `{command_line()}`: "
        f"{options.samples} calibration images, {len(dataset)} others to measure on; the reference is float32. "
        f"EdgeViT's recipe is `{options.recipe}`.",
        "",
        machine(options.threads),
        "",
        markdown(HEADER, rows),
        "",
        *missing_lines(entries),
    ]
    write_atomically(options.output, ("\n".join(text).rstrip() + "\n").encode())
    print("\n".join(text))


if __name__ == "__main__":
    main()
