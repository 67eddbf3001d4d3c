"""The figures of README.md: the built-in model and, where its weights are at hand, DeiT-tiny, through the pipeline.

    python benchmarks/first_light.py [--shared ../shared] [--output benchmarks/results/first-light.md]

Runs ``edgevit pipeline`` on the 10,000 test images of Fashion-MNIST (the sample's 2,000 where the whole set is not on
this machine), and on the 1,000 evaluation photos in ``--shared`` if that folder exists. Writes one Markdown table each,
with the commands and the machine they ran on, and, from the last of them, README's picture:
``docs/images/accuracy-latency.svg``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from command_line import command_line

from edgevit.bundle.store import Bundle
from edgevit.data.fashion_mnist import available
from edgevit.files import write_atomically
from edgevit.plots import svg, tradeoff
from edgevit.plots.tradeoff import PlottedVariant
from edgevit.report.data import report_data
from edgevit.report.formats import NOTHING, mebibytes, milliseconds, nats
from edgevit.report.plot import by_name, plotted
from edgevit.report.table import HEADINGS, remarks, rows

PICTURE = (800, 380)  # pixels
HEADER = (*HEADINGS, "KL (nats)", "p90", "cold start", "memory", "integer Linears")


def jobs(shared: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield a title and the arguments of ``edgevit pipeline`` for each model that can be measured here."""
    images, count = ("fashion-mnist", "10,000") if available() else ("fashion-mnist-sample", "2,000")
    for threads, words in ((1, "one thread"), (2, "two threads")):
        title = f"Built-in model, Fashion-MNIST, {count} test images, {words}"
        yield title, ["fashion-micro", "--data", images, "--threads", str(threads)]
    weights = shared / "weights" / "deit_tiny_patch16_224.safetensors"
    photos = shared / "images" / "imagenette"
    if weights.exists():
        data = [
            "--data",
            str(photos / "evaluation.csv"),
            "--calibration-data",
            str(photos / "calibration.csv"),
            "--threads",
            "2",
        ]
        yield "DeiT-tiny/16 at 224, 1,000 ImageNet photos, two threads", [str(weights), *data]


def measure(arguments: list[str], bundle: Path) -> Bundle:
    """Run the pipeline and return the bundle; a failed gate is a result, anything else ends this script."""
    command = [sys.executable, "-m", "edgevit", "pipeline", *arguments, "-o", str(bundle), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode not in (0, 1) or "error" in json.loads(done.stdout):
        sys.exit(done.returncode)
    return Bundle.open(bundle)


def table(title: str, arguments: list[str], bundle: Bundle) -> str:
    """Return the Markdown of one bundle."""
    lines = [f"## {title}", "", f"`edgevit pipeline {shlex.join(arguments)} -o NAME.edgevit`", ""]
    lines += ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    for row, variant in zip(rows(bundle.manifest), bundle.manifest.variants, strict=True):
        cells = [*row, *_further(variant)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {line}" for line in remarks(bundle.manifest)), ""])


def _further(variant: Any) -> list[str]:  # noqa: ANN401  # a PlottedVariant with everything measured
    latency, kernels = variant.latency, variant.kernels
    counts = f"{kernels.integer_linears}/{kernels.linears}" if kernels else NOTHING
    times = [milliseconds(latency.p90_ms), milliseconds(latency.cold_start_ms), mebibytes(latency.rss_mb)]
    return [nats(variant.accuracy.kl), *times, counts]


def picture(bundle: Bundle) -> bytes:
    """Return a plot of the variants of a bundle: accuracy with its 95 % interval, latency from the median to p90."""
    variants = []
    for entry in plotted(report_data(bundle.manifest)["variants"]):
        accuracy, latency = entry["accuracy"], entry["latency"]
        low, high = accuracy["top1_ci95"]
        rates = (100 * accuracy["top1"], 100 * low, 100 * high)
        text = by_name(0, entry) + (" ?" if not latency["valid"] else "")
        variants.append(
            PlottedVariant(text, entry["precision"], latency["p50_ms"], *rates, entry["on_front"], latency["p90_ms"])
        )
    plot = tradeoff.tradeoff(variants, *PICTURE)
    assert plot is not None
    return svg.standalone(tradeoff.draw_tradeoff(plot, "↑ top-1, per cent", titled=True), *PICTURE)


def machine(bundle: Bundle) -> str:
    """Return where it was measured."""
    place = bundle.manifest.variants[0].latency
    assert place is not None
    found, packages = place.environment, place.environment.packages
    versions = ", ".join(
        f"{name} {packages[name]}" for name in ("onnxruntime", "openvino", "numpy") if name in packages
    )
    return (
        f"{found.measured_at}: {found.cpu}, {found.cores} cores, {' '.join(found.cpu_features)}; {found.os}, "
        f"Python {found.python}, {versions}; batch {place.batch}."
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/accuracy-latency.svg"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/first-light.md"))
    options = parser.parse_args()
    command = command_line()
    parts = ["# First light", "", f"Written by `{command}`.", ""]
    with tempfile.TemporaryDirectory() as folder:
        for index, (title, arguments) in enumerate(jobs(options.shared)):
            bundle = measure(arguments, Path(folder) / f"{index}.edgevit")
            if index == 0:
                parts += [machine(bundle), ""]
            parts.append(table(title, arguments, bundle))
        drawn = picture(bundle)
    write_atomically(options.output, ("\n".join(parts).rstrip() + "\n").encode())
    write_atomically(options.picture, drawn)
    print("\n".join(parts))


if __name__ == "__main__":
    main()
