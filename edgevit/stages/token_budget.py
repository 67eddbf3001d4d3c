"""Choose by how much tokens are merged: ``quantize --token-budget``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevit.backends import backend_class
from edgevit.bundle.manifest import TokenMerging
from edgevit.bundle.reading import VerifiedFile
from edgevit.bundle.store import Bundle
from edgevit.data.batches import batches
from edgevit.data.dataset import Dataset
from edgevit.graph.linears import open_graph
from edgevit.graph.multiply_adds import images_within
from edgevit.progress import Progress
from edgevit.quantization.accuracy.criteria import SqnrLimit
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.calibration.image_pass import single_images
from edgevit.quantization.ptq import FloatModel
from edgevit.quantization.token_merging.losses import MergedModels
from edgevit.quantization.token_merging.schedule import MergingCosts, find_schedule
from edgevit.stages.calibrate import Selection, calibrated
from edgevit.stages.images import DataSource
from edgevit.stages.rules import Rules
from edgevit.stages.token_latency import TokenLatency, measure_token_latency
from edgevit.targets import Target

#: The budgets that ``auto`` chooses from, the smallest first.
BUDGETS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
#: Schedules are chosen on so many of the calibration images, at most and at least: as many as take so many multiply-
#: adds each time that they are run. Losses of single blocks differ little between images.
_CHOSEN_ON, _AT_LEAST, _MULTIPLY_ADDS = 32, 8, 200e9
_BATCH = 8
_NUMBERS = 1 << 24  # of outputs at the most, where a model gives many for an image
#: Prices of merging once, in multiples of what it was measured to take, with which schedules are tried: the measurement
#: is noisy, and for nothing there are many small merges. Which ones is a choice; what comes out is measured.
_MERGE_PRICES = (0.0, 0.5, 1.0, 2.0)
#: What merging once takes where it was not measured, as a share of the model's time.
_MERGE_TIME = 0.01
#: A schedule saves so much of what the one that saves most does: many small merges cost least, and save little. It is
#: a choice of time against accuracy; the budget holds in any case.
_OF_THE_MOST = 0.8
_LEAST_SAVED = 1e-3  # share of the time: what saves nothing costs too much


@dataclass(frozen=True, slots=True)
class Offer:
    """A schedule for a budget, and what share of the time it is expected to take."""

    merging: TokenMerging
    time: float


class ScheduleSearch:
    """Finds schedules for the bundle's model, with what merging costs and saves measured once."""

    def __init__(
        self,
        bundle: Bundle,
        float32: VerifiedFile,
        images: DataSource,
        rules: Rules,
        scratch: Path,
        progress: Progress,
    ) -> None:
        """Measure it, on calibration images and the engines of the rules' targets that are here.

        Raises:
            GraphError: if tokens cannot be merged in the model.
            DataError: if there are no images.

        """
        dataset = images.load(progress)
        manifest = bundle.manifest
        with open_graph(float32.path) as model:
            chosen_on = images_within(model, _MULTIPLY_ADDS, least=_AT_LEAST, most=_CHOSEN_ON)
        most = max(1, min(chosen_on, _NUMBERS // manifest.width))
        read = batches(dataset, manifest.preprocess, batch_size=_BATCH, unreadable=images.unreadable)
        few = islice(single_images(batch.images for batch in read), most)
        evaluator = Evaluator(float32.path, few, independent=manifest.independent, typed=manifest.typed_outputs)
        noise = SqnrLimit(0.0, manifest.typed_outputs)
        self.models = MergedModels(float32.path, evaluator, noise, scratch)
        loss = self.models.losses(progress)
        work = self.models.work(loss.shape[1])
        tables = _latencies(bundle, float32, images, dataset, rules, scratch, progress)
        self.measured = bool(tables)
        counts = self.models.counts
        time, merge_time = _in_shares(tables, work, counts)
        self._costs = MergingCosts(counts, loss, time, work, merge_time)

    def offer(self, budget: float) -> Offer | None:
        """Return the schedule for ``budget`` that costs least for the time that it saves; None where there is none."""
        schedules: dict[tuple[int, ...], None] = {}
        for price in _MERGE_PRICES:
            costs = replace(self._costs, merge_time=price * self._costs.merge_time)
            found = find_schedule(costs, budget)
            if found is not None:
                schedules[found] = None
        if not schedules:  # not so much can be saved, or what is saved is lost in the noise of a small model's times
            found = find_schedule(replace(self._costs, time=self._costs.work, merge_time=_MERGE_TIME), budget)
            if found is None:
                return None
            schedules[found] = None
        most = max(map(self._saved, schedules))
        schedule = min((each for each in schedules if self._saved(each) >= _OF_THE_MOST * most), key=self._price)
        share = min(1.0, self.models.share(schedule))
        merging = TokenMerging(budget=budget, share=share, schedule=schedule)
        return Offer(merging, self._costs.time_left(schedule))

    def _price(self, schedule: tuple[int, ...]) -> float:
        """Return what ``schedule`` is expected to cost for what it saves."""
        return self._costs.loss_of(schedule) / self._saved(schedule)

    def _saved(self, schedule: tuple[int, ...]) -> float:
        """Return the share of the time that ``schedule`` is expected to save."""
        return max(_LEAST_SAVED, 1 - self._costs.time_left(schedule))


def _latencies(
    bundle: Bundle,
    float32: VerifiedFile,
    images: DataSource,
    dataset: Dataset,
    rules: Rules,
    scratch: Path,
    progress: Progress,
) -> list[TokenLatency]:
    """Return what blocks take with each engine of the rules' targets that is here."""
    here = [target for target in rules.targets if _runs_here(target)]
    if not here:
        return []
    source = FloatModel.read(float32.path, float32.sha256)
    selection = Selection.of(images, bundle.manifest.preprocess, progress, dataset=dataset)
    table = calibrated(bundle, source, selection, progress, keep=False)
    found = (measure_token_latency(bundle, float32, target, table, rules, scratch, progress) for target in here)
    return [each for each in found if each is not None]


def _runs_here(target: Target) -> bool:
    backend = backend_class(target.backend)
    return backend.available() and backend.unbuildable_reason(target.build_options("int8")) is None


def _in_shares(
    tables: Sequence[TokenLatency], work: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """Return the time behind each block's merging (blocks, levels) and that of merging once, in shares of the whole.

    Of several engines it is the mean; without any, multiply-adds stand for time.
    """
    if not tables:
        return work, _MERGE_TIME
    whole_block = work[:, :1] / work[:, 0].max()  # less behind the last attention, where one token alone is computed
    times = [whole_block * table.block_with(counts) for table in tables]
    return np.mean(times, axis=0), float(np.mean([table.merging for table in tables]))
