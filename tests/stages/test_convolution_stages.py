"""Which stages of a network run in integers: those that save time, as long as the accuracy lasts."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from edgevit.graph.convolutions import Stage
from edgevit.progress import SILENT
from edgevit.stages import convolution_stages
from edgevit.stages.convolution_forms import RacedForm
from edgevit.stages.convolution_stages import StageTrial, best_stages, choose_stages, race_stages
from edgevit.stages.deviation import Allowance, Deviation

#: Stages of two convolutions each.
SIZES = ("56x56", "28x28", "14x14")
STAGES = tuple(Stage(where, (f"{where}.a", f"{where}.b")) for where in SIZES)
NAMES = frozenset(name for stage in STAGES for name in stage.names)
EXACT = Allowance(Deviation(None, None))  # of noise as loud as 24 dB


def trial(stage, ratio, sqnr, kl=None):
    return StageTrial(stage, frozenset(stage.names), ratio, Deviation(kl, sqnr))


def chosen(trials, allowance=EXACT):
    return [each.stage.where for each in best_stages(trials, allowance)]


def test_what_convolutions_may_cost():
    classifier = Allowance(Deviation(1e-4, 40.0))
    assert classifier.holds(Deviation(0.0019, 15.1))
    assert not classifier.holds(Deviation(0.0021, 30.0))  # probabilities move too far
    assert not classifier.holds(Deviation(1e-6, 14.9))  # flat logits: nothing moves probabilities
    lossy = Allowance(Deviation(0.003, 12.0))  # Linear layers alone are as far
    assert lossy.holds(Deviation(0.0059, 9.1))
    assert not lossy.holds(Deviation(0.0059, 8.9))
    assert not lossy.holds(Deviation(0.0061, 9.1))
    features = Allowance(Deviation(None, 40.0))
    assert features.holds(Deviation(None, 24.1))
    assert not features.holds(Deviation(None, 23.9))
    assert not EXACT.holds(Deviation(None, -np.inf))
    assert EXACT.holds(Deviation(None, None))


def test_the_share_that_is_used_is_of_the_measure_that_is_nearer_to_its_end():
    classifier = Allowance(Deviation(0.0, None))
    assert classifier.used(Deviation(0.001, 60.0)) == pytest.approx(0.5)
    assert classifier.used(Deviation(0.0, 15.0)) == pytest.approx(1.0)
    assert EXACT.used(Deviation(None, 24.0)) == pytest.approx(1.0)
    assert EXACT.used(Deviation(None, 27.0103)) == pytest.approx(0.5, rel=1e-3)
    assert Allowance(Deviation(None, 30.0)).used(Deviation(None, 31.0)) == 0  # by chance


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (((0.8, 40.0), (0.9, 40.0), (0.95, 40.0)), ["56x56", "28x28", "14x14"]),
        (((0.8, 40.0), (1.1, 40.0), (0.995, 40.0)), ["56x56"]),  # the others save no time
        (((0.8, 20.0), (0.9, 40.0), (0.9, 40.0)), ["28x28", "14x14"]),  # too far alone
        (((0.8, 26.0), (0.85, 26.0), (0.9, 40.0)), ["56x56", "14x14"]),  # too far together
        (((0.8, 24.2), (0.85, 28.0), (0.85, 28.0)), ["28x28", "14x14"]),  # two that save more than the one
        (((1.2, 40.0), (1.2, 40.0), (1.2, 40.0)), []),
    ],
)
def test_the_set_that_saves_most_within_what_is_allowed_is_best(found, expected):
    assert chosen([trial(stage, *each) for stage, each in zip(STAGES, found, strict=True)]) == expected


class Bench:
    """Stands for a workbench: each stage in integers costs so much noise; sessions are the names that are float."""

    target = SimpleNamespace(backend="engine")
    image = None

    def __init__(self, **noise):
        self.noise = {f"{where[1:]}": cost for where, cost in noise.items()}
        self.opened = []

    @contextmanager
    def open(self, floats):
        self.opened.append(frozenset(floats))
        noise = sum(self.noise[stage.where] for stage in STAGES if not set(stage.names) & set(floats))
        yield frozenset(floats), Deviation(None, -10 * np.log10(noise) if noise else None)


@pytest.fixture
def timed(monkeypatch):
    """Let each stage save so much of the time: a function that takes what."""

    def set_savings(**savings):
        by_stage = {where[1:]: saved for where, saved in savings.items()}

        def race(sessions, image):
            took = [
                1 - sum(by_stage[stage.where] for stage in STAGES if not set(stage.names) & floats)
                for floats in sessions
            ]
            return np.tile(took, (15, 1))

        monkeypatch.setattr(convolution_stages, "time_in_turns", race)

    return set_savings


def race_and_choose(bench, whole, rival):
    trials = race_stages(bench, STAGES, NAMES - whole.floats, NAMES, SILENT)
    return trials, choose_stages(bench, trials, NAMES, EXACT, whole, rival)


def form(sqnr, *float_sizes):
    floats = frozenset(name for stage in STAGES if stage.where in float_sizes for name in stage.names)
    return RacedForm("all", floats, Deviation(None, sqnr))


def test_stages_are_chosen_where_the_whole_is_too_far_from_float32(timed):
    timed(_56x56=0.3, _28x28=0.2, _14x14=0.1)
    bench = Bench(_56x56=0.02, _28x28=0.001, _14x14=0.001)
    trials, better = race_and_choose(bench, form(16.6), None)
    assert [round(each.ratio, 6) for each in trials] == [0.7, 0.8, 0.9]
    assert [each.stage.where for each in better.integers] == ["28x28", "14x14"]
    assert better.form.floats == set(STAGES[0].names)
    assert better.say() == (
        "those that give 28x28 and 14x14, 2 of 3 stages; 0.70 of the time that it takes with all in float, SQNR 27.0 dB"
    )
    assert better.float_reason(trials[0], EXACT) == (
        "its stage, which gives 56x56, had SQNR 17.0 dB in INT8 alone, and no noise without"
    )


def test_a_stage_that_is_slower_is_left_out_where_the_whole_is_accurate(timed):
    timed(_56x56=0.3, _28x28=-0.2, _14x14=0.1)
    whole = form(30.0)
    trials, better = race_and_choose(Bench(_56x56=1e-4, _28x28=1e-4, _14x14=1e-4), whole, whole)
    assert better.form.floats == set(STAGES[1].names)
    assert better.float_reason(trials[1], EXACT) == "its stage, which gives 28x28, took 1.20 of the time in INT8 alone"


def test_the_whole_stays_where_all_stages_pay(timed):
    timed(_56x56=0.3, _28x28=0.2, _14x14=0.1)
    whole = form(30.0)
    bench = Bench(_56x56=1e-4, _28x28=1e-4, _14x14=1e-4)
    assert race_and_choose(bench, whole, whole)[1] is None
    assert len(bench.opened) == 1 + len(STAGES)  # nothing more is built for it


def test_what_is_not_clearly_faster_is_not_chosen(timed):
    timed(_56x56=0.015, _28x28=-0.2, _14x14=-0.2)
    assert race_and_choose(Bench(_56x56=1e-4, _28x28=1e-4, _14x14=1e-4), form(30.0), None)[1] is None


class WorseTogether(Bench):
    """Two stages together cost far more than each alone."""

    @contextmanager
    def open(self, floats):
        with super().open(floats) as (session, deviation):
            integers = [stage.where for stage in STAGES if not set(stage.names) & set(floats)]
            yield session, Deviation(None, 10.0) if {"56x56", "28x28"} <= set(integers) else deviation


def test_what_is_too_far_once_it_is_built_loses_the_stage_that_costs_most(timed):
    timed(_56x56=0.3, _28x28=0.2, _14x14=0.1)
    bench = WorseTogether(_56x56=0.0015, _28x28=0.001, _14x14=0.0001)
    trials, better = race_and_choose(bench, form(10.0), None)
    assert [each.stage.where for each in better.integers] == ["28x28", "14x14"]
    assert better.float_reason(trials[0], EXACT).endswith("no noise without, too much beside the other stages")
