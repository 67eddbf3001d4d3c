"""Which layers must go back to float, so that what quantization costs stays within a limit.

Layers are ranked once, by what each costs alone (``sensitivity``), and go back to float in that order. How many of them
is found by doubling and then bisecting, so that of 49 layers at most a dozen choices are looked at. Costs alone do not
add up exactly: so each choice is emitted and run on images that nothing was fitted to, and only what was seen to hold
is taken.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgevit.bundle.manifest import LimitVerdict
from edgevit.progress import SILENT, Progress
from edgevit.quantization.emit import emit
from edgevit.quantization.fallback import return_to_float
from edgevit.quantization.judge import Judge
from edgevit.quantization.limits import Limit, describe, holds, measure
from edgevit.quantization.plan import LayerCost
from edgevit.quantization.prepare import Prepared
from edgevit.quantization.sensitivity import Form


@dataclass(frozen=True, slots=True)
class Trial:
    """What is lost with so many of the dearest layers in float, by the worst of the forms."""

    count: int
    loss: float


class Search:
    """Tries how many of the dearest layers must be float for a limit to hold."""

    def __init__(
        self,
        prepared: Prepared,
        unrounded: Path,
        judge: Judge,
        forms: Sequence[Form],
        limit: Limit,
        scratch: Path,
        progress: Progress = SILENT,
    ) -> None:
        """Take what is to be searched; each of ``forms`` must hold ``limit``, and ``scratch`` is to work in."""
        self._prepared = prepared
        self._unrounded = unrounded
        self._judge = judge
        self._forms = forms
        self._limit = limit
        self._scratch = scratch
        self._progress = progress

    def run(self, rank: Callable[[], Sequence[LayerCost]]) -> Prepared:
        """Return the model with as few layers in float as were found to do, and the verdict in its plan.

        ``rank`` is called only where rounding all layers breaks the limit, and the plan does not know the costs. At
        least one layer stays integer: else it would be float32. Where no choice holds, what comes nearest to the limit
        is returned.
        """
        layers = len(self._prepared.plan.integer_layers())
        integer = self._try((), 0)
        if holds(self._limit, integer.loss) or layers < 2:
            return self._judged(self._prepared, (), integer, layers)
        ranked = self._prepared.plan.sensitivity or tuple(rank())
        trials = {0: integer}

        def try_count(count: int) -> bool:
            trials[count] = self._try(ranked, count)
            return holds(self._limit, trials[count].loss)

        count = fewest(layers - 1, try_count)
        if count is None:
            count = min(trials.values(), key=lambda trial: (trial.loss, trial.count)).count
        if not count:
            return self._judged(self._prepared, ranked, integer, layers)
        reasons = self._reasons(ranked, integer, trials[count])
        found = self._returned(reasons, self._scratch / "found.onnx")
        shutil.move(found.model, self._prepared.model)
        return self._judged(Prepared(self._prepared.model, found.plan), ranked, trials[count], layers)

    def _try(self, ranked: Sequence[LayerCost], count: int) -> Trial:
        reasons = {cost.layer: "tried" for cost in ranked[:count]}
        tried = self._returned(reasons, self._scratch / "tried.onnx") if reasons else self._prepared
        emitted = self._scratch / "tried-int8.onnx"
        losses = []
        label = f"Trying {count} layers in float" if count else "Trying all layers in integers"
        for form in self._progress.track(self._forms, total=len(self._forms), label=label):
            emit(tried.model, tried.plan, form.dialect, emitted, weight_bits=form.weight_bits)
            outputs = self._judge.outputs(emitted, form.backend, form.settings)
            losses.append(measure(self._limit, self._judge.reference, outputs))
        loss = max(losses)
        self._progress.note(f"{_in_float(count)}: {describe(self._limit, loss)}, {self._limit.say_allowed()}")
        return Trial(count, loss)

    def _returned(self, reasons: dict[str, str], path: Path) -> Prepared:
        return return_to_float(self._prepared, self._unrounded, reasons, path)

    def _reasons(self, ranked: Sequence[LayerCost], integer: Trial, chosen: Trial) -> dict[str, str]:
        """Say for each layer what it costs alone, and what becomes of the model with and without those returned."""
        together = (
            f"on {len(self._judge)} held-out images {describe(self._limit, integer.loss)} with all layers in integers, "
            f"{describe(self._limit, chosen.loss)} with {chosen.count} in float; {self._limit.say_allowed()}"
        )
        return {
            cost.layer: f"number {place} of {len(ranked)} by what it costs alone ({cost.say()}); {together}"
            for place, cost in enumerate(ranked[: chosen.count], start=1)
        }

    def _judged(self, found: Prepared, ranked: tuple[LayerCost, ...], trial: Trial, layers: int) -> Prepared:
        passed = holds(self._limit, trial.loss)
        said = f"{describe(self._limit, trial.loss)} on {len(self._judge)} held-out images, {self._limit.say_allowed()}"
        reason = f"{said}; {trial.count} of {layers} layers returned to float"
        if not passed and math.isfinite(trial.loss):
            reason += f"; {self._limit.option(trial.loss)} would hold"
        verdict = LimitVerdict(passed=passed, images=len(self._judge), reason=reason)
        known = ranked or found.plan.sensitivity
        return Prepared(found.model, msgspec.structs.replace(found.plan, limit=verdict, sensitivity=known))


def fewest(most: int, enough: Callable[[int], bool]) -> int | None:
    """Return a number from 1 to ``most`` that was found to be ``enough``, when 0 is not; None if ``most`` is not.

    By doubling, then bisecting: the smallest there is, where all above one that is enough are enough as well.
    """
    low, high = 0, min(1, most)
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _in_float(count: int) -> str:
    return f"{count} layer{'s' * (count > 1)} in float" if count else "All layers in integers"
