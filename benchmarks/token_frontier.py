"""Accuracy against latency over token budgets, of INT8 in OpenVINO: what merging tokens gains a whole model.

    python benchmarks/token_frontier.py SOURCE --calibration DATA --evaluation DATA --token-budget B
        [--token-budget B]... [--image-size PIXELS] [--tokens] [--output FILE]

The model is exported, quantized with all tokens and by each budget, validated, and timed in turns: what
``edgevit export``, ``quantize``, ``validate`` and ``benchmark`` do. Answers are compared with those of float32 with all
tokens in onnxruntime, times with those of float32 in OpenVINO. With ``--tokens`` the model gives its patch tokens, each
of which is compared in its own place; without, its logits or its features.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from command_line import command_line
from comparison import machine, markdown, write_section

import edgevit
from edgevit.bundle.manifest import Accuracy, Variant
from edgevit.bundle.store import Bundle
from edgevit.report.formats import NOTHING

HEADING = "Token budgets: accuracy against latency"
ALL, REFERENCE = "int8-openvino", "float32-openvino"


def progress(event: edgevit.ProgressEvent) -> None:
    """Say what is done."""
    print(event, file=sys.stderr)


def accuracy_cells(found: Accuracy | None) -> list[str]:
    """Return how near to float32 it is: what decides the verdict, and by how much it passes."""
    if found is None:
        return [NOTHING, NOTHING]
    if found.similarity is not None:
        cosine = found.similarity
        return [f"{cosine.cosine_mean:.4f}", f"{cosine.cosine_p1:.4f}"]
    if found.outputs:
        (output,) = found.outputs
        return [f"{output.cosine_mean:.4f}", f"{output.cosine_p1:.4f}"]
    return [NOTHING if found.kl is None else f"{found.kl:.4f}", f"{100 * (found.agreement or 0):.1f} %"]


def row(variant: Variant, whole: float) -> list[str]:
    """Return a line of the table; ``whole`` is what INT8 with all tokens takes, in ms."""
    latency, merging = variant.latency, variant.token_merging
    assert latency is not None
    low, high = latency.speedup_ci95 or (None, None)
    speed = NOTHING if low is None else f"{latency.speedup_vs_float32:.2f} ({low:.2f} to {high:.2f})"
    return [
        variant.name,
        "100 %" if merging is None else f"{100 * merging.share:.0f} %",
        f"{latency.p50_ms:.3g} ms",
        speed,
        f"{whole / latency.p50_ms:.2f}",
        *accuracy_cells(variant.accuracy),
        "" if latency.valid else f"? {latency.invalid_reason}",
    ]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--token-budget", type=float, action="append", required=True)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--tokens", action="store_true", help="give patch tokens, not logits or features")
    parser.add_argument("--samples", type=int, default=16, help="calibration images (%(default)s)")
    parser.add_argument("--images", type=int, default=48, help="images to measure on (%(default)s)")
    parser.add_argument("--duration", type=float, default=20, help="seconds of timing for each variant (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/token-frontier.md"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.edgevit"
        outputs = ["tokens"] if options.tokens else []
        edgevit.export(options.source, path, image_size=options.image_size, outputs=outputs, progress=progress)
        for budget in (None, *options.token_budget):
            edgevit.quantize(
                path,
                data=options.calibration,
                samples=options.samples,
                dialect="openvino",
                token_budget=budget,
                progress=progress,
            )
        edgevit.validate(path, data=options.evaluation, samples=options.images, progress=progress)
        edgevit.benchmark(path, threads=2, duration=options.duration, progress=progress)
        bundle = Bundle.open(path)
    variants = [bundle.variant(REFERENCE), bundle.variant(ALL)]
    variants += sorted((each for each in bundle.manifest.variants if each.token_merging), key=lambda each: each.name)[
        ::-1
    ]
    whole = bundle.variant(ALL).latency
    assert whole is not None
    side = bundle.manifest.preprocess.size[0]
    given = "patch tokens" if options.tokens else "logits" if bundle.manifest.classes else "embedding"
    title = f"{Path(options.source).stem} at {side} px, {given}"
    near = ("KL (nats)", "agreement") if bundle.manifest.classes else ("mean cosine", "1st percentile")
    faster = ("speed-up over float32 (95 % interval)", "over INT8 with all tokens")
    header = ("variant", "multiply-adds", "latency", *faster, *near, "")
    text = [
        f"## {title}",
        "",
        f"Written by `{command_line()}`: {options.images} images that were not calibrated with.",
        "",
        machine(2),
        "",
        markdown(header, [row(each, whole.p50_ms) for each in variants]),
    ]
    write_section(options.output, HEADING, text)
    print("\n".join(text))


if __name__ == "__main__":
    main()
