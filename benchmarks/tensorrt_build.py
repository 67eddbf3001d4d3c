"""What compiling with TensorRT-RTX takes on this machine: seconds, memory, and whether it gives the same bytes again.

    python benchmarks/tensorrt_build.py MODEL.onnx... [--compute-capability 8.6] [--times 3]

Prints a Markdown table. Each build runs in a process of its own, whose largest resident memory is what is shown; the
model's file and the library are in it. No GPU is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import time
from pathlib import Path
from typing import NamedTuple

from edgevit.backends.base import BatchProfile
from edgevit.backends.tensorrt.bindings import load_bindings
from edgevit.backends.tensorrt.build_memory import plan_elsewhere
from edgevit.backends.tensorrt.builder import EngineBuild, build_engine
from edgevit.backends.tensorrt.log import DetailedLog

_MIB = 1 << 20


class Build(NamedTuple):
    """What one build took and gave."""

    seconds: float
    rss_mb: int
    bytes: int
    sha256: str


def build(model: Path, compute_capability: str) -> Build:
    """Build an engine for 1 to 16 images, as EdgeViT does."""
    started = time.monotonic()
    job = EngineBuild(model=model, compute_capability=compute_capability, batch=BatchProfile(max=16))
    engine = build_engine(load_bindings("tensorrt-rtx"), job, log=DetailedLog())
    seconds = time.monotonic() - started
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Build(seconds, rss_mb, len(engine.content), hashlib.sha256(engine.content).hexdigest())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--compute-capability", default="8.6")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    print("| model | MB | seconds | MiB at most | MiB predicted | engine, MB | engines that differ |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for model in options.models:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            jobs = [(model, options.compute_capability)] * options.times
            builds = [pool.apply(build, job) for job in jobs]
        size = model.stat().st_size
        seconds = sorted(each.seconds for each in builds)[len(builds) // 2]
        print(
            f"| {model.name} | {size / 1e6:.1f} | {seconds:.1f} | {max(each.rss_mb for each in builds)} "
            f"| {plan_elsewhere(size, None).total_mb} | {builds[0].bytes / 1e6:.1f} "
            f"| {len({each.sha256 for each in builds}) - 1} |"
        )


if __name__ == "__main__":
    main()
