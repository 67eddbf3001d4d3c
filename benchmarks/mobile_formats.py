"""Whether EdgeViT's rewrites help the quantizers of phones' engines: agreement with and without them.

``python benchmarks/mobile_formats.py BUNDLE --calibration DATA --evaluation DATA [--write]`` hands a bundle over to
LiteRT and ExecuTorch, as it is, rotated, smoothed, and both, and runs each INT8 model on the images. The tools must be
on the path: ``PYTHONPATH=.venv/mobile``, after ``make test-mobile``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from edgevit.api.images import images_of
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Strict, batches
from edgevit.evaluation.environment import environment
from edgevit.graph.running import run_all_outputs
from edgevit.mobile.formats import CONVERTERS
from edgevit.runtime.verification import GoldenFigures, golden_figures
from edgevit.stages import pack_mobile as stage
from edgevit.stages.images import LabelledBatches
from edgevit.stages.pack_mobile import pack_mobile
from edgevit.statistics import agreement, sqnr_db, top_k_hits, wilson_interval

RESULT = Path(__file__).parent / "results/mobile-formats.md"
FORMATS = ("litert", "executorch")
REWRITES = ((), ("rotated",), ("smoothed",), ("rotated", "smoothed"))


def read(bundle: Bundle, data: str) -> tuple[np.ndarray, np.ndarray]:
    """Return all images of ``data`` as the model takes them, with their labels."""
    images = images_of(data, "test", strict=True)
    labelled = LabelledBatches.of(images.load(), bundle.manifest.labels)
    found = list(batches(labelled.dataset, bundle.manifest.preprocess, batch_size=32, unreadable=Strict()))
    return np.concatenate([each.images for each in found]), labelled.labels


def measure(
    bundle: Bundle, name: str, rewrites: tuple, given: argparse.Namespace, images: np.ndarray
) -> tuple[np.ndarray, str]:
    """Return the INT8 model's logits for ``images``, and why ``pack`` would refuse it, if it would."""
    calibration, problems = images_of(given.calibration, "train", samples=given.samples), []

    def passing(*arguments: Any, **options: Any) -> GoldenFigures:  # noqa: ANN401
        figures = golden_figures(*arguments, **options)
        problems.extend([figures.problem] if figures.problem else [])
        return figures._replace(problem=None)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(stage, "golden_figures", passing):
        made = pack_mobile(bundle, name, Path(folder) / "out", images=calibration, rewrites=rewrites)
        found = CONVERTERS[name]().answers(made.path / made.content.models[-1].model, images)
    return np.concatenate([outputs[0] for outputs in found]), "".join(problems)


def row(name: str, rewrites: tuple, found: np.ndarray, problem: str, expected: np.ndarray, labels: np.ndarray) -> str:
    """Return a line of the table."""
    done = " and ".join(rewrites) or "as it is"
    count = len(labels)
    low, high = wilson_interval(round(agreement(expected, found) * count), count)
    hits = top_k_hits(found, labels, 1).mean()
    return (
        f"| {CONVERTERS[name].title} | {done} | {agreement(expected, found):.1%} ({low:.1%} to {high:.1%}) "
        f"| {sqnr_db(expected, found):.1f} dB | {hits:.1%} | {'refused' if problem else 'passes'} |"
    )


def main() -> None:
    """Measure, and print the table or write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--format", action="append", choices=FORMATS)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle)
    images, labels = read(bundle, given.evaluation)
    (expected,) = run_all_outputs(bundle.verify_float32().path, (image[None] for image in images))
    rows, versions = [], {}
    for name in given.format or FORMATS:
        CONVERTERS[name].check_installed()
        versions |= CONVERTERS[name].versions()
        for rewrites in REWRITES:
            rows.append(row(name, rewrites, *measure(bundle, name, rewrites, given, images), expected, labels))
            sys.stderr.write(rows[-1] + "\n")
    tools = ", ".join(f"{package} {version}" for package, version in versions.items())
    here = environment()
    lines = [
        "# Phones' quantizers, with EdgeViT's rewrites and without",
        "",
        f"Written by `python benchmarks/mobile_formats.py {bundle.path.name} --calibration DATA --evaluation DATA",
        f"--write`: INT8 by the engines' own quantizers, calibrated with the same {given.samples} images, and executed",
        f"in the engines on {len(labels)} others. Float32's top-1 is {top_k_hits(expected, labels, 1).mean():.1%}.",
        f"{here.measured_at}: {here.cpu}, {here.cores} cores; {tools}.",
        "",
        "| engine | model | float32's class (95 % interval) | SQNR of logits | top-1 | golden images |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
    ]
    text = "\n".join(lines) + "\n"
    if given.write:
        RESULT.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
