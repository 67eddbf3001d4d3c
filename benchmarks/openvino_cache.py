"""What OpenVINO's model cache saves until the first answer of a bundle's variants.

    python benchmarks/openvino_cache.py BUNDLE [--rounds 10]

Starts a process for each variant that OpenVINO runs, in turns with CACHE off and on, and times it from before Python
starts to the first logits, as ``edgevit benchmark`` does. The cache has been filled before. Ratios are of two
starts that follow each other; their median is printed with its bootstrap interval.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.evaluation.environment import environment
from edgevit.evaluation.messages import BenchmarkJob
from edgevit.evaluation.worker_process import WorkerProcess
from edgevit.statistics import median_interval
from edgevit.system import usable_cores


def start(bundle: Bundle, variant: Variant, cache: str) -> float:
    """Return the milliseconds from before the process to its first logits, with ``cache`` on or off."""
    wants, model = bundle.manifest.preprocess, bundle.verify_files(variant.name).absolute()
    with tempfile.TemporaryDirectory() as folder, WorkerProcess(Path(folder)) as worker:
        job = BenchmarkJob(
            backend=variant.backend,
            model=str(model),
            settings={**variant.settings, "CACHE": cache},
            threads=usable_cores(),
            shape=(1, wants.channels, *wants.size),
            seed=0,
            warmup=1,
            spawned_ns=worker.spawned_ns,
        )
        return worker.open(job, timeout_s=120).cold_start_ms


def main() -> None:
    """Print a line of a Markdown table for each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    place = environment()
    print(f"{place.cpu}, {place.cores} cores, openvino {place.packages['openvino']}, {place.measured_at}\n")
    print("| variant | cold start, off | on | on / off (95 %) |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EDGEVIT_CACHE"] = cache
        for variant in bundle.manifest.variants:
            if variant.backend == "openvino":
                start(bundle, variant, "on")
                pairs = [(start(bundle, variant, "off"), start(bundle, variant, "on")) for _ in range(options.rounds)]
                off, on = (statistics.median(column) for column in zip(*pairs, strict=True))
                ratios = [after / before for before, after in pairs]
                low, high = median_interval(ratios)
                ratio = statistics.median(ratios)
                print(
                    f"| {variant.name} | {off:.0f} ms | {on:.0f} ms | {ratio:.2f} ({low:.2f}-{high:.2f}) |", flush=True
                )


if __name__ == "__main__":
    main()
