"""Find out which observer and which alpha suit a model: fit each on a part of the images, evaluator it on another.

Clipping that makes a layer's own error smaller can ruin the model, because outliers carry meaning, and the scales that
a layer is expected to err least with need not be the model's best. So the whole model decides, by its logits. One
choice is made for all layers: to judge each layer's alone would take as many trials more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgevit.backends import REFERENCE, backend_class
from edgevit.errors import DataError
from edgevit.files import scratch_folder
from edgevit.graph.weights import letting_go
from edgevit.models.outputs import Output
from edgevit.quantization.accuracy.evaluator import AccuracyScore, Evaluator
from edgevit.quantization.arithmetic import Scheme
from edgevit.quantization.calibration.calibrate import calibrate
from edgevit.quantization.calibration.calibration_table import CalibrationTable
from edgevit.quantization.calibration.image_pass import single_images
from edgevit.quantization.emit import emit, scheme_of
from edgevit.quantization.plan import LinearPlan, Trial
from edgevit.quantization.ptq import CalibrationImages, PtqModel, rewrite_and_plan
from edgevit.quantization.rewrites.passes import Options
from edgevit.recipes import NO_REWRITES, Alpha, Observer, ObserverChoice, Percentile, Rewrites

T = TypeVar("T")

#: What is tried. Of those that come out alike the first is taken, so what clips least comes first.
OBSERVERS: tuple[Observer, ...] = (
    "minmax",
    "average-minmax",
    "moving-average",
    Percentile(99.999),
    Percentile(99.99),
    Percentile(99.9),
    "entropy",
    "mse",
)
ALPHAS: tuple[Alpha, ...] = (1.0, "off", 0.5, 0.65, 0.8, 0.9)

_EVERY = 4  # one image of so many is judged by, the others are fitted to
_MOST = 64  # images that are judged by: they are kept in memory
_BATCH = 16


def search_ranges(
    float32: Path,
    model: ir.Model,
    images: CalibrationImages,
    schemes: Iterable[Scheme],
    *,
    rotated: bool,
    observer: ObserverChoice = "auto",
    rewrites: Rewrites = NO_REWRITES,
    independent: bool = False,
    typed: Sequence[Output] = (),
) -> dict[Scheme, tuple[Trial, ...]]:
    """Return for each scheme what was tried and what it gave, the nearest to float32 by the logits' SQNR first.

    What ``observer`` and ``rewrites.alpha`` leave open, "auto", is one of ``OBSERVERS`` and of ``ALPHAS``: alphas are
    tried with the first observer, and the other observers with the best of them. Every fourth image is judged by, 64 at
    most; the others are fitted to. Weights are rounded to nearest, not for their layer's output, which takes longer and
    changes little about which choice is best. ``model`` was read from the file ``float32`` and, if it could be,
    ``rotated``; it stays as it is. ``independent`` and ``typed`` are the evaluator's.

    Raises:
        GraphError: if the model has no Linear layers, or an activation is not finite.
        DataError: if there are fewer than four images, or they do not fit.

    """
    held = list(islice(_held(images), _MOST))
    if not held:
        raise DataError(
            f"there are fewer than {_EVERY} images, too few to find the best observer or alpha",
            remedy="give 128 or so with --data, or name both in the recipe",
        )
    together = (np.concatenate(held[at : at + _BATCH]) for at in range(0, len(held), _BATCH))
    evaluator = Evaluator(float32, together, independent=independent, typed=typed)
    table = calibrate(model, _fitted(images), total=images.batches, model_sha256="", rotated=rotated)
    observers = OBSERVERS if observer == "auto" else (observer,)
    alphas = ALPHAS if rewrites.alpha == "auto" else (rewrites.alpha,)
    with scratch_folder() as scratch:
        trials = _Trials(model, table, evaluator, rewrites, scratch / "int8.onnx")
        return {scheme: _best_first(trials, scheme, observers, alphas, images) for scheme in schemes}


class _Trials:
    """Tries choices; what comes out as the same plan is tried once."""

    def __init__(
        self, model: ir.Model, table: CalibrationTable, evaluator: Evaluator, rewrites: Rewrites, place: Path
    ) -> None:
        self._model, self._table, self._evaluator = model, table, evaluator
        self._rewrites, self._place = rewrites, place
        self._scores: dict[tuple[Scheme, Alpha, tuple[LinearPlan, ...]], AccuracyScore] = {}

    def trial(self, scheme: Scheme, observer: Observer, alpha: Alpha) -> Trial:
        """Return what the model gives with these choices."""
        rewrites = msgspec.structs.replace(self._rewrites, alpha=alpha)
        options = Options(scheme, self._table.images, observer, rewrites)
        with letting_go(self._model.clone()) as model:
            rewritten, plan = rewrite_and_plan(model, self._table, options)
            key = scheme, alpha, plan.linears
            if key not in self._scores:
                emit(PtqModel(rewritten, plan), _dialect_of(scheme), self._place)
                self._scores[key] = self._evaluator.score(self._evaluator.outputs(self._place))
        score = self._scores[key]
        return Trial(observer=observer, alpha=alpha, kl=score.kl, sqnr_db=score.sqnr_db, agreement=score.agreement)


def _best_first(
    trying: _Trials, scheme: Scheme, observers: Sequence[Observer], alphas: Sequence[Alpha], images: CalibrationImages
) -> tuple[Trial, ...]:
    trials = [trying.trial(scheme, observers[0], each) for each in _tracked(alphas, "Trying alphas", images)]
    best = min(trials, key=_distance).alpha
    trials += [trying.trial(scheme, each, best) for each in _tracked(observers[1:], "Trying observers", images)]
    return tuple(sorted(trials, key=_distance))


def _tracked(choices: Sequence[T], label: str, images: CalibrationImages) -> Iterable[T]:
    return images.progress.track(choices, total=len(choices), label=label) if len(choices) > 1 else choices


def _distance(trial: Trial) -> float:
    return -np.inf if trial.sqnr_db is None else -trial.sqnr_db


def _held(images: CalibrationImages) -> Iterator[NDArray[np.float32]]:
    return islice(single_images(images.read()), _EVERY - 1, None, _EVERY)


def _fitted(images: CalibrationImages) -> Iterator[NDArray[np.float32]]:
    for index, image in enumerate(single_images(images.track("Calibrating on a part"))):
        if index % _EVERY != _EVERY - 1 or index >= _EVERY * _MOST:
            yield image


def _dialect_of(scheme: Scheme) -> str:
    """Return the form to judge ``scheme`` in: one that the engine runs which float32's logits come from."""
    return next(dialect for dialect in backend_class(REFERENCE).dialects if scheme_of(dialect) == scheme)
