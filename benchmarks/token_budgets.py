"""What merging tokens costs a model, in float32 and in INT8: schedules, budgets, and the order of merging and rounding.

    python benchmarks/token_budgets.py SOURCE --calibration DATA --evaluation DATA [--token-budget B]... [--output FILE]

For each budget: the schedule that ``quantize --token-budget`` finds, the paper's constant number in every block, and
one step, all with the same multiply-adds or a little less. INT8 is OpenVINO's, in float32 precision, with ranges of
merged tokens and, for comparison, of all tokens. The reference is float32 with all tokens.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from command_line import command_line
from comparison import checkpoint_of, machine, markdown
from numpy.typing import NDArray

from edgevit.bundle.reading import VerifiedFile
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Strict, batches
from edgevit.files import write_atomically
from edgevit.progress import SILENT
from edgevit.quantization.accuracy.evaluator import AccuracyScore, Evaluator
from edgevit.quantization.calibration.calibrate import calibrate
from edgevit.quantization.calibration.image_pass import single_images
from edgevit.quantization.emit import emit
from edgevit.quantization.ptq import CalibrationImages, FloatModel, optimize
from edgevit.quantization.token_merging.losses import MergedModels
from edgevit.recipes import Recipe, load_recipe
from edgevit.report.formats import NOTHING
from edgevit.stages.export import export
from edgevit.stages.images import DataSource
from edgevit.stages.rules import Rules
from edgevit.stages.token_budget import ScheduleSearch
from edgevit.targets import load_target

HEADER = ("budget", "schedule", "multiply-adds", "what", "agreement", "KL (nats)", "SQNR")
TARGET = "x86-openvino"
_HEAD = 7


def images_of(bundle: Bundle, source: DataSource) -> list[NDArray[np.float32]]:
    """Return the images (1, C, H, W) of ``source``, one by one."""
    read = batches(source.load(), bundle.manifest.preprocess, batch_size=16, unreadable=source.unreadable)
    return list(single_images(batch.images for batch in read))


class Int8:
    """Makes INT8 of the model with tokens merged, with ranges of merged or of all tokens."""

    def __init__(self, float32: VerifiedFile, images: list[NDArray[np.float32]], recipe: Recipe) -> None:
        self._float32, self._images, self._recipe = float32, images, recipe

    def write(self, schedule: tuple[int, ...], ranges_of: tuple[int, ...], path: Path) -> None:
        """Write INT8 with tokens merged by ``schedule``, its ranges those of tokens merged by ``ranges_of``."""
        sha256 = self._float32.sha256
        seen = FloatModel.read(self._float32.path, sha256, token_schedule=ranges_of)
        table = calibrate(
            seen.model, iter(self._images), total=len(self._images), model_sha256=sha256, rotated=seen.rotated
        )
        model = FloatModel.read(self._float32.path, sha256, token_schedule=schedule).model
        images = CalibrationImages(lambda: self._images, len(self._images))
        recipe = self._recipe
        observer = "minmax" if recipe.observer == "auto" else recipe.observer
        ptq = optimize(model, table, images, "asymmetric", observer=observer, rewrites=recipe.rewrites)
        emit(replace(ptq, plan=ptq.plan), "openvino", path, weight_bits=load_target(TARGET).weight_bits_on())


def schedules_of(search: ScheduleSearch, budget: float) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the schedules that are compared at ``budget``, by what they are called."""
    offer = search.offer(budget)
    if offer is None:
        return
    yield "searched", offer.merging.schedule
    models, share = search.models, offer.merging.share
    depth = len(models.stream.blocks)
    constant = ((count,) * (depth - 1) + (0,) for count in range(1, models.stream.patches // depth + 1))
    if (found := _first(models, constant, share)) is not None:
        yield "constant", found
    place = depth // 3
    counts = [int(count) for count in models.counts if 0 < count < models.stream.patches // 2]
    once = (tuple(count * (block == place) for block in range(depth)) for count in counts)
    if (found := _first(models, once, share)) is not None:
        yield "one step", found


def _first(models: MergedModels, schedules: Iterable[tuple[int, ...]], share: float) -> tuple[int, ...] | None:
    """Return the first of ``schedules``, each of which merges more than the one before, that leaves ``share``."""
    return next((each for each in schedules if models.share(each) <= share), None)


def cells(score: AccuracyScore) -> list[str]:
    """Return how near to float32 something is."""
    return [
        NOTHING if score.agreement is None else f"{100 * score.agreement:.1f} %",
        NOTHING if score.kl is None else f"{score.kl:.4f}",
        "exact" if score.sqnr_db is None else f"{score.sqnr_db:.1f} dB",
    ]


def shown(schedule: tuple[int, ...]) -> str:
    """Return a schedule, with its numbers alone where most blocks merge nothing."""
    if sum(count > 0 for count in schedule) > _HEAD:
        return " ".join(map(str, schedule))
    return ", ".join(f"{block}: {count}" for block, count in enumerate(schedule) if count) or "none"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--samples", type=int, default=128, help="calibration images (%(default)s)")
    parser.add_argument("--images", type=int, default=300, help="images to measure on (%(default)s)")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--token-budget", type=float, action="append", default=[])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/token-budgets.md"))
    options = parser.parse_args()
    calibration = DataSource(options.calibration, "train", Strict(), samples=options.samples)
    evaluation = DataSource(options.evaluation, "test", Strict(), samples=options.images)
    recipe = load_recipe(options.recipe)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = DataSource(options.calibration, "train", Strict(), samples=8)
        bundle = export(checkpoint_of(options.source), folder / "ours.edgevit", first)
        float32 = bundle.verify_float32()
        manifest = bundle.manifest
        rules = replace(
            Rules.of(recipe, "int8", classes=manifest.classes, typed=manifest.typed_outputs),
            targets=(load_target(TARGET),),
        )
        search = ScheduleSearch(bundle, float32, calibration, rules, folder, SILENT)
        measured = images_of(bundle, evaluation)
        judge = Evaluator(
            float32.path,
            islice(measured, options.images),
            independent=manifest.independent,
            typed=manifest.typed_outputs,
        )
        int8 = Int8(float32, images_of(bundle, calibration), recipe)
        path = folder / "int8.onnx"
        depth = len(search.models.stream.blocks)
        none = (0,) * depth
        int8.write(none, none, path)
        rows.append(["1", "none", "100 %", "INT8", *cells(judge.score(judge.outputs(path, "openvino")))])
        for budget in options.token_budget or [0.9, 0.8, 0.7]:
            for kind, schedule in schedules_of(search, budget):
                about = [f"{budget:g}", f"{kind}: {shown(schedule)}", f"{100 * search.models.share(schedule):.0f} %"]
                merged = search.models.write(schedule, folder / "merged-float.onnx")
                rows.append([*about, "float32", *cells(judge.score(judge.outputs(merged)))])
                if kind != "searched":
                    continue
                for what, ranges in (("INT8, ranges of merged tokens", schedule), ("INT8, ranges of all tokens", none)):
                    int8.write(schedule, ranges, path)
                    rows.append([*about, what, *cells(judge.score(judge.outputs(path, "openvino")))])
                print("\n".join("\t".join(row) for row in rows[-4:]), file=sys.stderr)
    text = [
        "# Merged tokens: what they cost",
        "",
        f"Written by `{command_line()}`: {len(judge)} images that were "
        "not calibrated with; the reference is float32 with all tokens. A schedule: how many tokens each block merges.",
        "",
        machine(2),
        "",
        markdown(HEADER, rows),
    ]
    write_atomically(options.output, ("\n".join(text) + "\n").encode())
    print("\n".join(text))


if __name__ == "__main__":
    main()
