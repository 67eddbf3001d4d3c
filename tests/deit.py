"""The pretrained DeiT-tiny and photos in ../shared: each file and answer is made once, for all tests and workers."""

import csv
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from once import once
from tiny import must_run

from edgevit.backends import get_backend
from edgevit.bundle.store import Bundle
from edgevit.data.batches import Strict, batches, load_pixels
from edgevit.data.csv_table import load_csv
from edgevit.data.preprocess import Preprocess
from edgevit.stages import validate
from edgevit.stages.precisions import OPTIMIZED, PLANS

PREPROCESS = Preprocess(size=(224, 224), resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
PHOTOS = 200
BATCH = 8
SAMPLES = "32"  # photos to calibrate with
NOTHING_SET: Mapping[str, str] = {}


class Deit:
    """What there is of the model and the photos; tests read it, and change copies."""

    def __init__(self, shared: Path, factory: pytest.TempPathFactory) -> None:
        self.weights = shared / "weights" / "deit_tiny_patch16_224.safetensors"
        self.photos = shared / "images" / "imagenette"
        self._once = partial(once, factory)

    def exported(self) -> Path:
        """Return the bundle with float32 alone."""

        def make(folder: Path) -> None:
            must_run("export", self.weights, "-o", folder / "deit.edgevit", "--data", self.photos / "calibration.csv")

        return self._once("deit-exported", make) / "deit.edgevit"

    def float32(self) -> Path:
        """Return the float32 file of the bundle."""
        return Bundle.open(self.exported()).verify_files("float32")

    def quantized(self) -> Path:
        """Return the bundle with variants in INT8 for both engines."""

        def make(folder: Path) -> None:
            path = shutil.copytree(self.exported(), folder / "deit.edgevit")
            must_run("quantize", path, "--data", self.photos / "calibration.csv", "--samples", SAMPLES)

        return self._once("deit-quantized", make) / "deit.edgevit"

    def optimized(self) -> tuple[Path, Path]:
        """Return the model from which INT8 is written for both engines, and its plan."""
        bundle = Bundle.open(self.quantized())
        return bundle.verify_extra(OPTIMIZED["asymmetric"]).path, bundle.verify_extra(PLANS["asymmetric"]).path

    def portable(self) -> Path:
        """Return the bundle with a portable variant, too: its activations are signed."""

        def make(folder: Path) -> None:
            path = shutil.copytree(self.quantized(), folder / "deit.edgevit")
            few = ("--data", self.photos / "calibration.csv", "--samples", SAMPLES)
            must_run("quantize", path, *few, "--dialect", "portable")

        return self._once("deit-portable", make) / "deit.edgevit"

    def evaluation(self) -> Path:
        """Return a list of ``PHOTOS`` photos from all over those for evaluation; they are in ``photos/evaluation``."""

        def make(folder: Path) -> None:
            with (self.photos / "evaluation.csv").open(newline="") as stream:
                rows = list(csv.reader(stream))
            chosen = np.linspace(1, len(rows) - 1, PHOTOS).astype(int)
            with (folder / "some.csv").open("w", newline="") as stream:
                csv.writer(stream).writerows([rows[0], *(rows[index] for index in chosen)])

        return self._once("deit-evaluation", make) / "some.csv"

    def pixels(self) -> Path:
        """Return the file of these photos' pixels, as they are cut out for the model."""

        def make(folder: Path) -> None:
            dataset = load_csv(self.evaluation(), root=self.photos / "evaluation")
            np.save(folder / "pixels.npy", load_pixels(dataset, PREPROCESS))

        return self._once("deit-pixels", make) / "pixels.npy"

    def images(self) -> list[NDArray[np.float32]]:
        """Return these photos as the model takes them, in batches of ``BATCH``."""
        pixels = np.load(self.pixels(), mmap_mode="r")
        return [PREPROCESS.normalize(pixels[at : at + BATCH]) for at in range(0, PHOTOS, BATCH)]

    def calibration(self, count: int) -> list[NDArray[np.float32]]:
        """Return ``count`` photos from all over those for calibration, in batches of ``BATCH``."""
        dataset = load_csv(self.photos / "calibration.csv")
        chosen = np.arange(0, len(dataset), len(dataset) // count)[:count]
        read = batches(dataset, PREPROCESS, batch_size=BATCH, indices=chosen, unreadable=Strict())
        return [batch.images for batch in read]

    def validated(self) -> Path:
        """Return the bundle with what ``edgevit validate`` measured on the photos for evaluation."""

        def make(folder: Path) -> None:
            path = shutil.copytree(self.quantized(), folder / "deit.edgevit")
            photos = ("--data", self.evaluation(), "--root", self.photos / "evaluation")
            with keeping_logits(folder / "logits.npz"):
                must_run("validate", path, *photos, "--max-drop", "3")

        return self._once("deit-validated", make) / "deit.edgevit"

    def answers(self, engine: str, precision: str = "float32") -> NDArray[np.float32]:
        """Return the logits for them of a variant for ``engine``; `edgevit validate` has asked it already."""
        with np.load(self.validated().parent / "logits.npz") as logits:
            found: NDArray[np.float32] = logits[f"{precision}-{engine}"]
        return found


@contextmanager
def keeping_logits(path: Path) -> Iterator[None]:
    """Write what `edgevit validate` collects meanwhile to ``path``, by variant."""
    collect = validate.collect_logits

    def collect_and_keep(*arguments, **options):
        logits = collect(*arguments, **options)
        np.savez(path, **logits)
        return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "collect_logits", collect_and_keep)
        yield


def infer(
    engine: str, model: Path, given: Iterable[NDArray[np.float32]], settings: Mapping[str, str] = NOTHING_SET
) -> NDArray[np.float32]:
    """Return the logits that a file of ``engine``'s has for the images of all ``given``."""
    with get_backend(engine).open(model, threads=0, settings=settings, batch=BATCH) as session:
        return np.concatenate([session.infer(batch) for batch in given])
