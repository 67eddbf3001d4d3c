"""Find out which observer suits a model: fit each on one part of the images, judge it on another by the logits.

Clipping that makes a layer's own error smaller can ruin the model, because outliers carry meaning; so the whole model
decides. One observer is chosen for all layers: to judge each layer's alone would take as many trials more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevit.errors import DataError
from edgevit.files import scratch_folder
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.calibrate import calibrate, one_by_one
from edgevit.quantization.emit import emit
from edgevit.quantization.judge import Judge, Score
from edgevit.quantization.plan import LinearPlan, Trial
from edgevit.quantization.prepare import CalibrationImages, plan_scheme
from edgevit.quantization.rewrites.apply import smooth
from edgevit.recipes import NO_REWRITES, Observer, Percentile, Rewrites

#: What is tried. Of those that come out alike the first is taken, so what clips least comes first.
CANDIDATES: tuple[Observer, ...] = (
    "minmax",
    "average-minmax",
    "moving-average",
    Percentile(99.999),
    Percentile(99.99),
    Percentile(99.9),
    "entropy",
    "mse",
)

_EVERY = 4  # one image of so many is judged by, the others are fitted to
_MOST = 64  # images that are judged by: they are kept in memory
_BATCH = 16

#: Each way to store activations is judged in a form that onnxruntime runs.
_DIALECTS: dict[Scheme, str] = {"asymmetric": "onnxruntime", "symmetric": "portable"}


def try_observers(
    model: Path, images: CalibrationImages, schemes: Iterable[Scheme], *, rewrites: Rewrites = NO_REWRITES
) -> dict[Scheme, tuple[Trial, ...]]:
    """Return for each scheme what each of ``CANDIDATES`` gave, the nearest to float32 by the logits' SQNR first.

    Every fourth image is judged by, 64 at most; the others are fitted to. Weights are rounded to nearest, not for their
    layer's output, which takes longer and changes little about which range is best.

    Raises:
        GraphError: if the file is no float32 ONNX model with Linear layers, or an activation is not finite.
        DataError: if there are fewer than four images, or they do not fit.

    """
    held = list(islice(_held(images), _MOST))
    if not held:
        raise DataError(
            f"there are fewer than {_EVERY} images, too few to find the best observer",
            remedy="give 128 or so with --data, or name an observer in the recipe",
        )
    judge = Judge(model, (np.concatenate(held[at : at + _BATCH]) for at in range(0, len(held), _BATCH)))
    table = calibrate(model, _fitted(images), total=images.batches, rotated=True)
    with scratch_folder() as scratch:
        ranges = smooth(model, table, scratch / "smoothed.onnx", rewrites=rewrites)
        found = {}
        for scheme in schemes:
            scores: dict[tuple[LinearPlan, ...], Score] = {}
            trials = []
            for observer in images.progress.track(CANDIDATES, total=len(CANDIDATES), label="Trying observers"):
                base, plan = plan_scheme(scratch / "smoothed.onnx", ranges, scheme, observer, rewrites, scratch)
                if plan.linears not in scores:
                    emit(base, plan, _DIALECTS[scheme], scratch / "int8.onnx")
                    scores[plan.linears] = judge.score(scratch / "int8.onnx")
                score = scores[plan.linears]
                trials.append(Trial(observer=observer, kl=score.kl, sqnr_db=score.sqnr_db, agreement=score.agreement))
            found[scheme] = tuple(sorted(trials, key=_distance))
    return found


def _distance(trial: Trial) -> float:
    return -np.inf if trial.sqnr_db is None else -trial.sqnr_db


def _held(images: CalibrationImages) -> Iterator[NDArray[np.float32]]:
    return islice(one_by_one(images.read()), _EVERY - 1, None, _EVERY)


def _fitted(images: CalibrationImages) -> Iterator[NDArray[np.float32]]:
    for index, image in enumerate(one_by_one(images.track("Calibrating on a part"))):
        if index % _EVERY != _EVERY - 1 or index >= _EVERY * _MOST:
            yield image
