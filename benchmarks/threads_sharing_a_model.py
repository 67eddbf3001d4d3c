"""How many images a second one loaded model answers when one thread uses it, and when several share it.

    python benchmarks/threads_sharing_a_model.py fashion.edgevit --sharing 2

Blocks of one thread and of several alternate in one process. Printed is the median of the ratios of neighbours,
several threads over one, with a bootstrap interval of 95 %; each thread decodes and prepares its images, as in an
application. ``--threads`` is how many the engine itself takes.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import numpy as np
from command_line import command_line

from edgevit.bundle.store import Bundle
from edgevit.evaluation.environment import environment
from edgevit.runtime import Model, load

_RESAMPLES = 10_000


def answered(model: Model, images: list[bytes], sharing: int, seconds: float) -> float:
    """Return how many images a second ``sharing`` threads get answers for."""
    counts = [0] * sharing
    end = time.perf_counter() + seconds

    def ask(number: int) -> None:
        while time.perf_counter() < end:
            model.predict(images[(counts[number] + number) % len(images)])
            counts[number] += 1

    start = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(sharing)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def main() -> None:
    """Measure each variant that is named, or all for the CPU's engines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--variant", action="append")
    parser.add_argument("--sharing", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5)
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle)
    images = [path.read_bytes() for path in sorted(given.bundle.glob("golden/*.png"))]
    names = given.variant or [
        one.name for one in bundle.manifest.variants if one.backend in ("onnxruntime", "openvino")
    ]
    here = environment()
    print("# Threads that share a model", "", f"Written by `{command_line()}`.", "", sep="\n")
    packages = ", ".join(f"{name} {found}" for name, found in here.packages.items())
    print(f"{here.measured_at}: {here.cpu}, {here.cores} cores, {packages};")
    print(f"bundle {bundle.manifest.name}, {given.sharing} threads share a model whose engine takes {given.threads}.\n")
    print("| variant | images a second, one thread | shared | ratio (95 %) |", "| --- | --- | --- | --- |", sep="\n")
    for name in names:
        with load(given.bundle, variant=name, threads=given.threads) as model:
            answered(model, images, given.sharing, given.seconds)
            pairs = np.array(
                [
                    [answered(model, images, count, given.seconds) for count in (1, given.sharing)]
                    for _ in range(given.blocks)
                ]
            )
        ratios = pairs[:, 1] / pairs[:, 0]
        draws = np.random.default_rng(0).choice(ratios, (_RESAMPLES, len(ratios)))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
        one, several = np.median(pairs, axis=0)
        print(f"| {name} | {one:.0f} | {several:.0f} | {np.median(ratios):.2f} ({low:.2f} to {high:.2f}) |", flush=True)


if __name__ == "__main__":
    main()
