"""Race the stages of a network, the convolutions that give maps of one size, and choose which run in integers.

Each stage is built in integers alone, all else float: that tells the time it saves and the accuracy it costs. Both add
up, about, so that the best set of stages is found without building them all; what was found is then built and measured
as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from edgevit.backends.base import Session
from edgevit.graph.convolutions import Stage
from edgevit.progress import Progress
from edgevit.stages.convolution_forms import RacedForm, Workbench
from edgevit.stages.deviation import Allowance, Deviation
from edgevit.stages.settings_race import MARGIN, time_in_turns

#: Stages that are told apart; images of 224 pixels go through five, and each is a file to build.
MOST_STAGES = 6

#: Of the whole model's time: what a stage saves that is to be in integers. It is a choice: less is lost in the noise of
#: the race, and costs accuracy all the same. What the chosen stages save together must be more than ``MARGIN``.
_LEAST_GAIN = 0.01
_TRIES = 3  # sets of stages that are built


@dataclass(frozen=True, slots=True)
class StageTrial:
    """A stage of which ``names`` are in integers alone: the model's time as a share of that with none, its accuracy."""

    stage: Stage
    names: frozenset[str]
    ratio: float
    deviation: Deviation

    def say(self) -> str:
        """Return what it costs in words."""
        return f"alone in INT8 it took {self.ratio:.2f} of the time, and had {self.deviation.say()}"


@dataclass(frozen=True, slots=True)
class ByStage:
    """The stages that were raced, those of them that are in integers, the form that this makes, and its time.

    ``ratio`` is that time as a share of the time with all convolutions float.
    """

    trials: tuple[StageTrial, ...]
    integers: tuple[StageTrial, ...]
    form: RacedForm
    ratio: float = 1.0

    def say(self) -> str:
        """Return what was chosen in words."""
        *rest, last = [each.stage.where for each in self.integers]
        those = f"{', '.join(rest)} and {last}" if rest else last
        return (
            f"those that give {those}, {len(self.integers)} of {len(self.trials)} stages; {self.ratio:.2f} of the time "
            f"that it takes with all in float, {self.form.deviation.say()}"
        )

    def float_reason(self, trial: StageTrial, allowance: Allowance) -> str:
        """Return in words why the convolutions of ``trial`` are float."""
        stage = f"its stage, which gives {trial.stage.where},"
        if not _saves(trial):
            return f"{stage} took {trial.ratio:.2f} of the time in INT8 alone"
        beside = "" if not allowance.holds(trial.deviation) else ", too much beside the other stages"
        return f"{stage} had {trial.deviation.say()} in INT8 alone, and {allowance.without.say()} without{beside}"


def race_stages(
    bench: Workbench, stages: Sequence[Stage], integers: Collection[str], names: frozenset[str], progress: Progress
) -> tuple[StageTrial, ...]:
    """Return what each of ``stages`` takes with those of its convolutions in integers that are among ``integers``.

    ``names`` are all convolutions; a stage with none in integers is left out.
    """
    chosen = [(stage, names.intersection(stage.names, integers)) for stage in stages]
    raced = [(stage, own) for stage, own in chosen if own]
    trials = []
    with bench.open(names) as (plain, _):
        label = f"Racing stages of convolutions with {bench.target.backend}"
        for stage, own in progress.track(raced, total=len(raced), label=label):
            with bench.open(names - own) as (session, deviation):
                times = time_in_turns([plain, session], bench.image)
            trials.append(StageTrial(stage, own, float(np.median(times[:, 1] / times[:, 0])), deviation))
    return tuple(trials)


def best_stages(trials: Sequence[StageTrial], allowance: Allowance) -> tuple[StageTrial, ...]:
    """Return those of ``trials`` that save most time together, and are expected to keep the ``allowance``.

    Of sets that save as much it is the one with more convolutions.
    """
    saving = [trial for trial in trials if _saves(trial)]

    def gain(those: Sequence[StageTrial]) -> tuple[float, int]:
        return sum(1 - each.ratio for each in those), sum(len(each.names) for each in those)

    sets = itertools.chain.from_iterable(itertools.combinations(saving, size) for size in range(len(saving) + 1))
    return max((those for those in sets if sum(allowance.used(each.deviation) for each in those) <= 1), key=gain)


def choose_stages(
    bench: Workbench,
    trials: tuple[StageTrial, ...],
    names: frozenset[str],
    allowance: Allowance,
    whole: RacedForm,
    rival: RacedForm | None,
) -> ByStage | None:
    """Return the stages of ``whole`` to have in integers; None where nothing is won.

    ``rival`` is the form that was chosen for the whole model, None where that is to have all ``names`` in float. What
    is returned keeps the ``allowance``, and is clearly faster. Where what is expected to keep it does not, the stage
    that costs most is left out, and so on.
    """
    fits = allowance.holds(whole.deviation)  # so do parts of it
    picked = [each for each in trials if _saves(each)] if fits else list(best_stages(trials, allowance))
    for _ in range(_TRIES):
        floats = names.difference(*(each.names for each in picked))
        if not picked or (rival is not None and floats == rival.floats):
            return None
        with bench.open(floats) as (session, deviation):
            if allowance.holds(deviation):
                return _if_faster(
                    bench, ByStage(trials, tuple(picked), RacedForm("", floats, deviation)), session, names, rival
                )
        picked.remove(max(picked, key=lambda each: allowance.used(each.deviation)))
    return None


def _if_faster(
    bench: Workbench, found: ByStage, session: Session, names: frozenset[str], rival: RacedForm | None
) -> ByStage | None:
    """Return ``found``, which ``session`` runs, with its time, if that is clearly less than with ``rival``."""
    others = [names] if rival is None else [names, rival.floats]
    with ExitStack() as stack:
        opened = [stack.enter_context(bench.open(floats))[0] for floats in others]
        times = time_in_turns([*opened, session], bench.image)
    ratios = np.median(times[:, [-1]] / times, axis=0)
    return replace(found, ratio=float(ratios[0])) if ratios[len(others) - 1] < 1 - MARGIN else None


def _saves(trial: StageTrial) -> bool:
    return trial.ratio <= 1 - _LEAST_GAIN
