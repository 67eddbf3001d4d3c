"""What OpenVINO gains where it is told the number of images: why EdgeViT compiles a model for one image first.

    python benchmarks/openvino_shapes.py BUNDLE [--threads 2] [--rounds 40]

Times each variant that OpenVINO runs on one image, in turns: compiled as the file is, for any number of images, and
compiled for one. Both are compiled with the variant's settings, and by OpenVINO's own interface. Ratios are of two
runs that follow each other; their median is printed with its bootstrap interval.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from edgevit.backends.openvino_settings import properties
from edgevit.bundle.manifest import Variant
from edgevit.bundle.store import Bundle
from edgevit.evaluation.environment import environment
from edgevit.statistics import median_interval
from edgevit.system import usable_cores

REPEATS, WARM_UP = 5, 3


def compiled(bundle: Bundle, variant: Variant, threads: int, *, one: bool) -> Any:  # noqa: ANN401
    """Return a request of the variant's model, compiled for ``one`` image or for any number."""
    core, wants = openvino.Core(), bundle.manifest.preprocess
    model = core.read_model(bundle.verify_files(variant.name))
    if one:
        model.reshape([1, wants.channels, *wants.size])
    return core.compile_model(model, "CPU", properties(variant.settings, threads)).create_infer_request()


def milliseconds(request: Any, image: np.ndarray[Any, Any]) -> float:  # noqa: ANN401
    """Return what one of several inferences in a row takes."""
    started = time.perf_counter()
    for _ in range(REPEATS):
        request.infer([image])
    return (time.perf_counter() - started) / REPEATS * 1e3


def main() -> None:
    """Print a line of a Markdown table for each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    wants, place = bundle.manifest.preprocess, environment()
    image = np.random.default_rng(0).standard_normal((1, wants.channels, *wants.size), dtype=np.float32)
    features = " ".join(place.cpu_features)
    print(f"{place.cpu}, {features}; {options.threads} threads, openvino {place.packages['openvino']}\n")
    print("| variant | any number | one image | one / any (95 %) |\n| --- | --- | --- | --- |")
    for variant in bundle.manifest.variants:
        if variant.backend == "openvino":
            requests = [compiled(bundle, variant, options.threads, one=one) for one in (False, True)]
            rounds = [[milliseconds(request, image) for request in requests] for _ in range(WARM_UP + options.rounds)]
            ratios = [one / any_ for any_, one in rounds[WARM_UP:]]
            any_, one = (statistics.median(column) for column in zip(*rounds[WARM_UP:], strict=True))
            low, high = median_interval(ratios)
            ratio = f"{statistics.median(ratios):.2f} ({low:.2f}-{high:.2f})"
            print(f"| {variant.name} | {any_:.2f} ms | {one:.2f} ms | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
