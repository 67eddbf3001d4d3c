"""What `edgevit validate` costs beside the inference itself.

    python benchmarks/validate_cost.py BUNDLE --data IMAGES [--samples 500] [--pairs 5]

The same images, in turns: once as ``edgevit.validate`` does it, with the figures, their intervals, and what lies
behind them; once as little as possible: each image is decoded and prepared once, and each variant's session is run on
batches of the same size. Both open the variants. Writes benchmarks/results/validate-cost.md.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from comparison import machine

import edgevit
from edgevit.backends.variants import open_variant
from edgevit.bundle.store import Bundle
from edgevit.data.dataset import Dataset
from edgevit.data.sources import load_dataset, subset
from edgevit.files import write_atomically
from edgevit.system import usable_cores

OUTPUT = Path("benchmarks/results/validate-cost.md")
BATCH = 32


def least(bundle: Bundle, images: Dataset) -> float:
    """Return the seconds that decoding once and inference alone take."""
    start = time.perf_counter()
    preprocess = bundle.manifest.preprocess
    with ExitStack() as stack:
        sessions = [stack.enter_context(open_variant(bundle, each.name)) for each in bundle.manifest.variants]
        for first in range(0, len(images), BATCH):
            places = range(first, min(first + BATCH, len(images)))
            batch = np.stack([preprocess(images.image(place)) for place in places])
            for session in sessions:
                session.infer(batch)
    return time.perf_counter() - start


def main() -> None:
    """Measure in turns, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / given.bundle.name
        shutil.copytree(given.bundle, copy)
        bundle = Bundle.open(copy)
        images = subset(load_dataset(given.data, split="test"), given.samples, seed=0, balanced=True)
        for pair in range(given.pairs):
            raw = least(bundle, images)
            start = time.perf_counter()
            edgevit.validate(copy, data=given.data, samples=given.samples)
            whole = time.perf_counter() - start
            ratios.append(whole / raw)
            print(f"pair {pair + 1}: validate {whole:.1f} s, the least {raw:.1f} s, ratio {ratios[-1]:.3f}", flush=True)
    low, middle, high = np.percentile(ratios, [0, 50, 100])
    command = f"python benchmarks/validate_cost.py {given.bundle.name} --data IMAGES --samples {given.samples}"
    text = (
        f"# What `edgevit validate` costs beside inference\n\n`{command}`, {machine(usable_cores())}\n\n"
        f"{len(bundle.manifest.variants)} variants of {bundle.manifest.name} on {given.samples} images, {given.pairs} "
        f"pairs in turns: validating takes {middle:.2f} times ({low:.2f} to {high:.2f}) as long as decoding each image "
        "once and running each variant on it.\n"
    )
    write_atomically(OUTPUT, text.encode())
    print(text)


if __name__ == "__main__":
    main()
