"""Which layers must go back to float, so that what quantization costs stays within a limit.

Layers are ranked once, by what each costs alone (``sensitivity``), and go back to float in that order. How many of them
is found by doubling and then bisecting, so that of 49 layers at most a dozen choices are looked at; then each of those
is tried in integers again, and stays so where the limit holds without it. Costs alone do not add up exactly: so each
choice is emitted and run on images that nothing was fitted to, and only what was seen to hold is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edgevit.bundle.manifest import LimitVerdict
from edgevit.progress import SILENT, Progress
from edgevit.quantization.accuracy.criteria import Limit, describe_loss, holds, measure_loss
from edgevit.quantization.accuracy.evaluator import Evaluator
from edgevit.quantization.accuracy.sensitivity import Form
from edgevit.quantization.emit import emit
from edgevit.quantization.float_fallback import float_in, revert_to_float
from edgevit.quantization.plan import LayerSensitivity
from edgevit.quantization.ptq import PtqModel

#: So many of the layers in float, the cheapest first, are tried in integers again: costs alone do not add up exactly.
_TRIED_AGAIN = 16


@dataclass(frozen=True, slots=True)
class FallbackTrial:
    """What is lost with ``layers`` in float, by the ``worst`` of the forms."""

    layers: tuple[str, ...]
    loss: float
    worst: Form


class Search:
    """Tries which of the most sensitive layers must be float for a limit to hold."""

    def __init__(
        self,
        ptq: PtqModel,
        evaluator: Evaluator,
        forms: Sequence[Form],
        limit: Limit,
        scratch: Path,
        progress: Progress = SILENT,
    ) -> None:
        """Take what is to be searched; each of ``forms`` must hold ``limit``, and ``scratch`` is to work in."""
        self._ptq = ptq
        self._evaluator = evaluator
        self._forms = forms
        self._limit = limit
        self._scratch = scratch
        self._progress = progress
        self._trials: dict[frozenset[str], FallbackTrial] = {}

    def run(self, rank: Callable[[Form], Sequence[LayerSensitivity]]) -> PtqModel:
        """Return the model with as few layers in float as were found to do, and the verdict in its plan.

        ``rank`` is called only where rounding all layers breaks the limit, with the form that breaks it most: a layer
        may be float in another, and cost nothing there. The plan may know the costs in the first form already. At least
        one layer stays integer: else it would be float32. Where no choice holds, what comes nearest to the limit is
        returned.
        """
        integer = self._try((), "All layers in integers")
        count = len(self._ptq.plan.integer_layers())
        if self._holds(integer) or count < 2:
            return self._with_verdict(self._ptq, integer)
        known = self._ptq.plan.sensitivity if integer.worst == self._forms[0] else ()
        ranked = known or tuple(rank(integer.worst))
        plan = msgspec.structs.replace(self._ptq.plan, sensitivity=ranked)
        self._ptq = replace(self._ptq, plan=plan)
        order = tuple(cost.layer for cost in ranked)

        enough = fewest(count - 1, lambda first: self._holds(self._try(order[:first], _in_float(first))))
        if enough is None:
            nearest = min(self._trials.values(), key=lambda trial: (trial.loss, len(trial.layers)))
            return self._returned(nearest, integer, {})
        chosen, needed = self._without_the_needless(self._trials[frozenset(order[:enough])])
        return self._returned(chosen, integer, needed)

    def _without_the_needless(self, found: FallbackTrial) -> tuple[FallbackTrial, dict[str, float]]:
        """Return the layers of ``found`` that the limit does not hold without, and what is lost without each."""
        needed = {}
        for layer in reversed(found.layers[-_TRIED_AGAIN:]):
            others = tuple(other for other in found.layers if other != layer)
            without = self._try(others, f"{layer} in integers again")
            if self._holds(without):
                found = without
            else:
                needed[layer] = without.loss
        return found, needed

    def _holds(self, trial: FallbackTrial) -> bool:
        return holds(self._limit, trial.loss)

    def _try(self, layers: tuple[str, ...], label: str) -> FallbackTrial:
        """Emit the model with ``layers`` in float, and run it; what was tried before is known."""
        known = self._trials.get(frozenset(layers))
        if known is not None:
            return known
        reasons = dict.fromkeys(layers, "tried")
        tried = revert_to_float(self._ptq, reasons)
        emitted = self._scratch / "tried-int8.onnx"
        losses = []
        for form in self._progress.track(self._forms, total=len(self._forms), label=label):
            emit(float_in(tried, form.dialect), form.dialect, emitted, weight_bits=form.weight_bits)
            outputs = self._evaluator.outputs(emitted, form.backend, form.settings)
            losses.append(measure_loss(self._limit, self._evaluator.reference, outputs))
        worst = max(range(len(losses)), key=losses.__getitem__)
        trial = FallbackTrial(layers, losses[worst], self._forms[worst])
        self._progress.note(f"{label}: {describe_loss(self._limit, trial.loss)}, {self._limit.say_allowed()}")
        self._trials[frozenset(layers)] = trial
        return trial

    def _returned(self, chosen: FallbackTrial, integer: FallbackTrial, needed: Mapping[str, float]) -> PtqModel:
        """Return the model with the ``chosen`` layers in float, and the verdict."""
        if not chosen.layers:
            return self._with_verdict(self._ptq, chosen)
        return self._with_verdict(revert_to_float(self._ptq, self._reasons(chosen, integer, needed)), chosen)

    def _reasons(self, chosen: FallbackTrial, integer: FallbackTrial, needed: Mapping[str, float]) -> dict[str, str]:
        """Say for each layer what it costs alone, and what becomes of the model with and without those returned."""
        limit, ranked = self._limit, self._ptq.plan.sensitivity
        together = (
            f"on {len(self._evaluator)} images {describe_loss(limit, integer.loss)} with all layers in integers, "
            f"{describe_loss(limit, chosen.loss)} with {len(chosen.layers)} in float"
        )
        reasons = {}
        for place, cost in enumerate(ranked, start=1):
            if cost.layer in chosen.layers:
                alone = f"number {place} of {len(ranked)} by what it costs alone ({cost.say()})"
                again = (
                    f", {describe_loss(limit, needed[cost.layer])} with this one in integers"
                    if cost.layer in needed
                    else ""
                )
                reasons[cost.layer] = f"{alone}; {together}{again}; {limit.say_allowed()}"
        return reasons

    def _with_verdict(self, found: PtqModel, trial: FallbackTrial) -> PtqModel:
        passed, images = self._holds(trial), len(self._evaluator)
        loss = describe_loss(self._limit, trial.loss)
        said = f"{loss} on {images} image{'s' * (images > 1)}, {self._limit.say_allowed()}"
        layers = len(self._ptq.plan.integer_layers())
        reason = f"{said}; {len(trial.layers)} of {layers} layers returned to float"
        if not passed and math.isfinite(trial.loss):
            reason += f"; {self._limit.option(trial.loss)} would hold"
        verdict = LimitVerdict(passed=passed, images=images, reason=reason)
        return replace(found, plan=msgspec.structs.replace(found.plan, limit=verdict))


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
    return f"{count} layer{'s' * (count > 1)} in float"
