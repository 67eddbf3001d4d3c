"""What each constant and each rewrite of EdgeViT's INT8 is worth, on any model and images.

    python benchmarks/ablations.py SOURCE --calibration DATA --evaluation DATA [--dialect NAME] [--only NAME]...
        [--seeds 3] [--time] [--planted KIND]

    edgevit export rec.onnx -o rec.edgevit --output logits    # outputs that are not one row: SOURCE is a bundle

Each line changes one thing and leaves the rest as it is. Writes a Markdown table: agreement, KL divergence and SQNR of
the outputs against float32 on the evaluation images, and how many times the KL and the noise of "as it is" that is, on
the same images, with a bootstrap interval over them; other models that are in the file already stay there. An interval
knows nothing of which images calibration drew: with ``--seeds`` each line is made from so many draws, and the last
column has the noise with each. ``--time`` has the time beside that of "as it is", the two in turns on one thread.
Images are observed once for each seed, and again where that is what changes. What ``SOURCE`` is: all that ``edgevit
export`` takes, or a bundle. TensorRT's forms are run by onnxruntime.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ablation_changes import BASE, Change, changed, chosen
from command_line import command_line
from comparison import machine, write_section
from numpy.typing import NDArray
from rich.progress import track

import edgevit
from edgevit.backends import REFERENCE, backend_class, get_backend
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Strict, batches
from edgevit.evaluation.bootstrap import ImageFigure, bca_interval
from edgevit.quantization.calibration import observers
from edgevit.recipes import load_recipe
from edgevit.report.formats import NOTHING, decibels, nats, percent, ratio_interval, speed_up
from edgevit.stages.images import DataSource
from edgevit.stages.settings_race import time_in_turns
from edgevit.statistics import agreement, kl_divergences, mean_kl, median_interval, sqnr_db

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from planted_outliers import KINDS, plant_in

OUTPUT = Path("benchmarks/results/ablations.md")
HEADER = ("", "agreement", "KL (nats)", "SQNR", "KL, times", "noise, times", "noise with each seed")
_RACES = 4  # of 15 rounds each

Outputs = NDArray[np.float32]


class Ablations:
    """A model, the images that it is judged by, and what it gives as it is."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.exported = folder / "float32.edgevit"
        if options.source.endswith(".edgevit"):
            shutil.copytree(options.source, self.exported)
        else:
            source = plant_in(options.source, options.planted, folder) if options.planted else options.source
            edgevit.export(source, self.exported, data=options.evaluation)
        bundle = Bundle.open(self.exported)
        self.classes, self.independent = bool(bundle.manifest.classes), bundle.manifest.independent
        evaluation = DataSource(options.evaluation, "test", Strict(), samples=options.images)
        read = batches(evaluation.load(), bundle.manifest.preprocess, batch_size=16, unreadable=Strict())
        self.images = np.concatenate([batch.images for batch in read])
        self.reference = self._run(bundle, "float32")
        self._base: list[Outputs] = []

    def row(self, change: Change) -> list[str]:
        """Return the cells of one line."""
        found = [self._outputs(change, seed) for seed in range(self.options.seeds)]
        if change == BASE:
            self._base = found
        reference = np.concatenate([self.reference] * len(found))
        outputs = np.concatenate(found)
        rate = agreement(reference, outputs, independent=self.independent) if self.classes else None
        kl = mean_kl(reference, outputs, independent=self.independent) if self.classes else None
        pairs = list(zip(self._base, found, strict=True))
        by_seed = [times([(self._noise(one), self._noise(other))]) for one, other in pairs]
        cells = [
            str(change),
            NOTHING if rate is None else percent(rate, len(outputs)),
            NOTHING if kl is None else nats(kl),
            decibels(sqnr_db(reference, outputs)),
            times_and_interval([(self._kl(one), self._kl(other)) for one, other in pairs]) if self.classes else NOTHING,
            times_and_interval([(self._noise(one), self._noise(other)) for one, other in pairs]),
            ", ".join(f"{each:.2f}" for each in by_seed),
        ]
        return [*cells, self._time()] if self.options.time else cells

    def _noise(self, outputs: Outputs) -> NDArray[np.float64]:
        """Return the power of the noise in each image's outputs (N,)."""
        return np.asarray(np.square(self.reference.astype(np.float64) - outputs).sum(axis=1))

    def _kl(self, outputs: Outputs) -> NDArray[np.float64]:
        return kl_divergences(self.reference, outputs, independent=self.independent)

    def _outputs(self, change: Change, seed: int) -> Outputs:
        """Return what the model gives for the images with ``change`` in force, calibrated with the draw of ``seed``."""
        observed = self.folder / f"observed{seed}.edgevit"
        shutil.rmtree(self._changed, ignore_errors=True)
        kept = observed.exists() and observers not in change.modules
        shutil.copytree(observed if kept else self.exported, self._changed)
        options = self.options
        with changed(change, load_recipe("default")) as recipe:
            made = edgevit.quantize(
                self._changed,
                data=options.calibration if options.precision == "int8" else None,
                dialect=options.dialect,
                recipe=recipe,
                precision=options.precision,
                seed=seed,
            )
        if change == BASE:
            shutil.copytree(self._changed, observed)
        self._variant = next(each.name for each in made.variants if each.precision == options.precision)
        return self._run(made.bundle, self._variant)

    @property
    def _changed(self) -> Path:
        return self.folder / "changed.edgevit"

    def _run(self, bundle: Bundle, name: str) -> Outputs:
        variant = bundle.variant(name)
        own = backend_class(variant.backend).available()
        backend, settings = (variant.backend, variant.settings) if own else (REFERENCE, {})
        with get_backend(backend).open(bundle.verify_files(name), threads=0, settings=settings) as session:
            return np.concatenate([session.infer(image[None]) for image in self.images])

    def _time(self) -> str:
        """Return the time of the variant that was made last, beside that of "as it is" by the last seed."""
        before = Bundle.open(self.folder / f"observed{self.options.seeds - 1}.edgevit")
        variants = [(each, each.variant(self._variant)) for each in (before, Bundle.open(self._changed))]
        backend = get_backend(variants[0][1].backend)
        files = [(bundle.verify_files(variant.name), variant.settings) for bundle, variant in variants]
        first, second = (backend.open(path, threads=1, settings=settings) for path, settings in files)
        with first, second:
            rounds = np.concatenate([time_in_turns([first, second], self.images[:1]) for _ in range(_RACES)])
        ratios = rounds[:, 1] / rounds[:, 0]
        low, high = median_interval(ratios.tolist())
        return f"{speed_up(float(np.median(ratios)))} ({ratio_interval((low, high))})"


Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def times(pairs: Sequence[Pair]) -> float:
    """Return how many times the sum of the first of each of ``pairs``, both (N,), that of the second is."""
    return _figure(pairs).value


def times_and_interval(pairs: Sequence[Pair]) -> str:
    """Return the same with its interval; images are drawn, each with what it gave in all pairs."""
    if all(np.array_equal(one, other) for one, other in pairs):
        return "the same"
    low, high = bca_interval(_figure(pairs), confidence=0.95)
    return f"{speed_up(times(pairs))} ({ratio_interval((low, high))})"


def _figure(pairs: Sequence[Pair]) -> ImageFigure:
    before, now = (np.sum([pair[place] for pair in pairs], axis=0) for place in (0, 1))
    return ImageFigure(np.stack([before, now], axis=1), lambda sums: sums[:, 1] / sums[:, 0])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--planted", choices=KINDS, help="outliers to plant in a checkpoint's weights")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--evaluation", required=True)
    parser.add_argument("--images", type=int, help="to judge by; all without it")
    parser.add_argument("--dialect", default="onnxruntime")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--only", action="append", default=[], help="this constant or setting, or 'NAME VALUE'; again")
    parser.add_argument("--seeds", type=int, default=1, help="draws of calibration images (%(default)s)")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    changes = chosen(options.precision, options.dialect, options.only)
    what = options.dialect if options.precision == "int8" else f"{options.dialect}, {options.precision}"
    model = Path(options.source).stem + (f" with planted {options.planted}" if options.planted else "")
    title = f"## {model}, {what}" + (f", {options.images} images" if options.images else "")
    title += f", {options.seeds} seeds" if options.seeds > 1 else ""
    header = (*HEADER, "time") if options.time else HEADER
    lines = [title, "", f"`{command_line()}`. {machine(0)}", ""]
    lines += [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
    with tempfile.TemporaryDirectory() as name:
        ablations = Ablations(options, Path(name))
        for change in track(changes, description=title):
            lines.append(f"| {' | '.join(ablations.row(change))} |")
            write_section(options.output, "Ablations", lines)  # it may take hours
    print(options.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
