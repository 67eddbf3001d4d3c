"""Speed of this checkout beside another one: loading, answering, quantizing; and whether the answers of both are equal.

    git worktree add /tmp/before COMMIT  # deit.edgevit is made there: an older EdgeViT refuses a newer one's
    python benchmarks/against_another_checkout.py /tmp/before deit.edgevit --variant int8-onnxruntime
    python benchmarks/against_another_checkout.py /tmp/before float32.edgevit --quantize photos.csv --pairs 3
    python benchmarks/against_another_checkout.py /tmp/before SOURCE --logits photos.csv

Processes of the two take turns, each with the packages of the Python that runs this. Each imports the runtime and loads
the bundle, loads it again three times, and predicts one image 150 times; or is ``edgevit quantize`` on a copy of the
bundle, with ``--samples`` images of the data that is named. Printed are medians, over the pairs, of the ratios of this
checkout to the other one, with their quartiles: below 1 this one is faster.

With ``--logits`` each checkout exports SOURCE (a checkpoint, or fashion-micro) and makes the variants of all precisions
that can be made here, calibrated with the data that is named; their logits and plans are compared, as
``compare_bundles.py`` does, in a table: bit for bit, or by the largest difference.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from compare_bundles import compare_plans, compare_variants, images_for, table

from edgevit.bundle.store import Bundle
from edgevit.evaluation.environment import environment

Measure = Callable[[Path], list[float]]

FIGURES = ("import and first load", "load", "predict")

#: What is made to compare logits: precisions and dialects.
STEPS = (
    ("int8", "auto"),
    ("int8", "portable"),
    ("int8", "tensorrt"),
    ("fp16", "auto"),
    ("int8-dynamic", "auto"),
    ("int8-weights", "auto"),
    ("int4-weights", "auto"),
)
COMPARED = 64  # images

_WORKER = """
import json, statistics, sys, time
start = time.perf_counter()
from edgevit.runtime import load
bundle, variant, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = load(bundle, variant=variant, threads=threads)
first = time.perf_counter() - start
def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
loads = [timed(lambda: load(bundle, variant=variant, threads=threads).close()) for _ in range(3)]
with open(bundle + "/golden/00.png", "rb") as file:
    image = file.read()
for _ in range(20):
    model.predict(image)
predictions = [timed(lambda: model.predict(image)) for _ in range(150)]
print(json.dumps([first, statistics.median(loads), statistics.median(predictions)]))
"""


def command(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``edgevit`` of ``checkout``."""
    return subprocess.run(
        [sys.executable, "-m", "edgevit", *words],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return why a command failed."""
    return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]


def make_variants(checkout: Path, source: str, data: str, samples: int, bundle: Path) -> list[str]:
    """Let ``checkout`` export ``source`` and make all variants that it can; return what it cannot, with the reasons."""
    done = command(checkout, "export", source, "-o", str(bundle), "--data", data)
    if done.returncode:
        sys.exit(f"{checkout}: {last_line(done)}")
    failed = []
    for precision, dialect in STEPS:
        images = ["--data", data, "--samples", str(samples)] if precision in ("int8", "fp16") else []
        done = command(checkout, "quantize", str(bundle), "--precision", precision, "--dialect", dialect, *images)
        if done.returncode not in (0, 1):  # 1: done, but a limit did not hold
            failed.append(f"{precision}, {dialect}: {last_line(done)}")
    return failed


def compare_logits(here: Path, other: Path, source: str, data: str, samples: int) -> None:
    """Print how the variants that the ``other`` checkout and this one make of ``source`` differ."""
    with tempfile.TemporaryDirectory() as name:
        paths = {other: Path(name) / "before.edgevit", here: Path(name) / "after.edgevit"}
        failed = {checkout: make_variants(checkout, source, data, samples, path) for checkout, path in paths.items()}
        before, after = (Bundle.open(path) for path in paths.values())
        print(table(compare_variants(before, after, images_for(before, COMPARED, data))))
        print(*compare_plans(before, after), sep="\n")
    for checkout, lines in failed.items():
        for line in lines:
            print(f"not made by {checkout}: {line}")


def seconds(checkout: Path, bundle: Path, variant: str, threads: int) -> list[float]:
    """Return the seconds of each of ``FIGURES`` in a process that takes EdgeViT from ``checkout``."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _WORKER, str(bundle), variant, str(threads)],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:  # an older EdgeViT refuses a newer one's bundle: the older must have made it
        sys.exit(f"{checkout}: {last_line(done)}")
    found: list[float] = json.loads(done.stdout)
    return found


def seconds_to_quantize(checkout: Path, bundle: Path, data: str, samples: int) -> list[float]:
    """Return the seconds that ``edgevit quantize`` of ``checkout`` takes on a copy of ``bundle``."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / bundle.name
        shutil.copytree(bundle, copy)
        started = time.perf_counter()
        done = command(checkout, "quantize", str(copy), "--data", data, "--samples", str(samples))
        taken = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{checkout}: {done.stderr.strip()}")
    return [taken]


def compare(name: str, figures: Sequence[str], pairs: int, here: Path, other: Path, measure: Measure) -> None:
    """Let both checkouts take turns and print a line for each of the ``figures`` that ``measure`` returns."""
    ratios = []
    for pair in range(pairs):
        found = {path: measure(path) for path in (here, other)[:: 1 if pair % 2 else -1]}
        ratios.append(np.array(found[here]) / np.array(found[other]))
    low, middle, high = np.quantile(np.array(ratios), [0.25, 0.5, 0.75], axis=0)
    for figure, *values in zip(figures, middle, low, high, strict=True):
        print(f"{name}, {figure}: {values[0]:.3f} ({values[1]:.3f}-{values[2]:.3f})")


def absolute(given: str) -> str:
    """Return a path from the root, and a name as it is: checkouts are where their commands run."""
    return str(Path(given).resolve()) if Path(given).exists() else given


def main() -> None:
    """Compare the variants that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("bundle", help="or, with --logits, what is exported")
    parser.add_argument("--variant", action="append", default=[])
    parser.add_argument("--quantize", metavar="DATA", help="time `edgevit quantize` on these images")
    parser.add_argument("--logits", metavar="DATA", help="compare logits and plans, calibrated with these images")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=10)
    given = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    place = environment()
    print(f"{place.cpu}, {place.cores} cores, {', '.join(f'{name} {found}' for name, found in place.packages.items())}")
    other, source = given.other.resolve(), absolute(given.bundle)
    bundle = Path(source)
    for variant in given.variant:
        compare(
            variant,
            FIGURES,
            given.pairs,
            here,
            other,
            partial(seconds, bundle=bundle, variant=variant, threads=given.threads),
        )
    if given.quantize:
        data = absolute(given.quantize)
        measure = partial(seconds_to_quantize, bundle=bundle, data=data, samples=given.samples)
        compare("quantize", [f"{given.samples} images"], given.pairs, here, other, measure)
    if given.logits:
        compare_logits(here, other, source, absolute(given.logits), given.samples)


if __name__ == "__main__":
    main()
