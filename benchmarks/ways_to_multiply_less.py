"""Merging tokens, smaller images, blocks left out: what each costs a model for the multiply-adds that it saves.

    python benchmarks/ways_to_multiply_less.py SOURCE --calibration DATA --evaluation DATA [--token-budget B]...
        [--image-size PIXELS]... [--output FILE]

All is in float32, and compared with the model as it is. A smaller image is prepared for its own size, and positions are
interpolated, as ``export --image-size`` does it. Of the blocks behind the first, each is left out, as are its
attention alone and its MLP alone: the one of each kind that costs least is shown.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from command_line import command_line
from comparison import machine, markdown, write_section
from numpy.typing import NDArray
from onnx_ir.passes import common
from token_budgets import cells, images_of, shown

import edgevit
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Strict
from edgevit.graph.linears import load_graph
from edgevit.graph.saving import save, tidy
from edgevit.graph.token_stream import find_token_stream
from edgevit.graph.weights import letting_go
from edgevit.progress import SILENT
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.token_merging.losses import multiply_adds_of
from edgevit.recipes import load_recipe
from edgevit.stages.images import DataSource
from edgevit.stages.rules import Rules
from edgevit.stages.token_budget import ScheduleSearch
from edgevit.statistics import cosines

HEADING = "Ways to multiply less: what they cost"
BUDGETS, SIZES = (0.9, 0.8, 0.7, 0.6, 0.5), (208, 192, 176, 160)
Part = Literal["block", "attention", "MLP"]
PARTS: tuple[Part, ...] = ("block", "attention", "MLP")


class Judge:
    """Says how near outputs are to those of the model as it is."""

    def __init__(self, bundle: Bundle, images: list[NDArray[np.float32]]) -> None:
        self.classes = bundle.manifest.classes
        self.evaluator = Evaluator(bundle.verify_float32().path, images, independent=bundle.manifest.independent)

    @property
    def header(self) -> tuple[str, ...]:
        """What ``cells`` are."""
        return ("what", "multiply-adds", *(("agreement", "KL (nats)") if self.classes else ("cosine",)), "SQNR")

    def outputs(self, path: Path) -> NDArray[np.float32]:
        """Return what the file at ``path`` gives for the same images."""
        return self.evaluator.outputs(path)

    def loss(self, outputs: NDArray[np.float32]) -> float:
        """Return what is to be small."""
        return float(self.evaluator.score(outputs).kl or 0) if self.classes else 1 - self.cosine(outputs)

    def cosine(self, outputs: NDArray[np.float32]) -> float:
        """Return the mean cosine of features."""
        return float(cosines(self.evaluator.reference, outputs).mean())

    def row(self, what: str, share: float, outputs: NDArray[np.float32]) -> list[str]:
        """Return a line of the table."""
        agreement, kl, sqnr = cells(self.evaluator.score(outputs))
        near = [agreement, kl] if self.classes else [f"{self.cosine(outputs):.4f}"]
        return [what, f"{100 * share:.0f} %", *near, sqnr]


def macs_of(path: Path) -> int:
    """Return how much the model at ``path`` multiplies for one image."""
    with letting_go(load_graph(path)) as model:
        common.ShapeInferencePass()(model)
        return sum(each.macs for each in multiply_adds_of(model))


def leave_out(float32: Path, block: int, part: Part, path: Path) -> Path:
    """Write the model without a ``part`` of ``block`` to ``path``: what came in goes on as it is."""
    with letting_go(load_graph(float32)) as model:
        common.ShapeInferencePass()(model)
        blocks = find_token_stream(model.graph).blocks
        came_in, residual, given = blocks[block - 1].output, blocks[block].residual, blocks[block].output
        if part != "MLP":
            residual.replace_all_uses_with(came_in)
        if part != "attention":
            given.replace_all_uses_with(came_in if part == "block" else residual, replace_graph_outputs=True)
        tidy(model)
        return save(model, path).path


def without_parts(judge: Judge, float32: Path, depth: int, scratch: Path) -> Iterator[list[str]]:
    """Yield a line for the block, the attention and the MLP that can be left out at the least loss."""
    whole = macs_of(float32)
    for part in PARTS:
        tried = []
        for block in range(1, depth):
            path = leave_out(float32, block, part, scratch / "without.onnx")
            outputs = judge.outputs(path)
            tried.append((judge.loss(outputs), block, macs_of(path) / whole, outputs))
        _, block, share, outputs = min(tried, key=lambda each: each[0])
        yield judge.row(f"without the {part} {block}, the cheapest of {depth - 1}", share, outputs)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--images", type=int, default=300, help="images to measure on (%(default)s)")
    parser.add_argument("--at", type=int, help="the size that the model is exported for, in pixels; by default its own")
    parser.add_argument("--token-budget", type=float, action="append", default=[])
    parser.add_argument("--image-size", type=int, action="append", default=[])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/ways-to-multiply-less.md"))
    options = parser.parse_args()
    calibration = DataSource(options.calibration, "train", Strict(), samples=32)
    evaluation = DataSource(options.evaluation, "test", Strict(), samples=options.images)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def exported(size: int | None) -> Bundle:
            path = folder / f"{size}.edgevit"
            edgevit.export(options.source, path, image_size=size)
            return Bundle.open(path)

        bundle = exported(options.at)
        float32 = bundle.verify_float32()
        judge = Judge(bundle, images_of(bundle, evaluation))
        rules = Rules.of(load_recipe("default"), "int8", classes=bundle.manifest.classes, typed=())
        search = ScheduleSearch(bundle, float32, calibration, replace(rules, targets=()), folder, SILENT)
        for budget in options.token_budget or BUDGETS:
            if (offer := search.offer(budget)) is not None:
                schedule, share = offer.merging.schedule, offer.merging.share
                merged = search.models.write(schedule, folder / "merged.onnx")
                rows.append(judge.row(f"tokens merged, {shown(schedule)}", share, judge.outputs(merged)))
        whole = macs_of(float32.path)
        for size in options.image_size or SIZES:
            smaller = exported(size)
            path = smaller.verify_float32().path
            seen = Judge(smaller, images_of(smaller, evaluation)).evaluator.reference
            rows.append(judge.row(f"images of {size} px", macs_of(path) / whole, seen))
        rows += without_parts(judge, float32.path, len(search.models.stream.blocks), folder)
        side = bundle.manifest.preprocess.size[0]
    title = f"{Path(options.source).stem} at {side} px"
    text = [
        f"## {title}",
        "",
        f"Written by `{command_line()}`: {options.images} images; the reference is the model as it is, all in float32.",
        "",
        machine(2),
        "",
        markdown(judge.header, rows),
    ]
    write_section(options.output, HEADING, text)
    print("\n".join(text))


if __name__ == "__main__":
    main()
