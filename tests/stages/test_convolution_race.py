"""Which convolutions run in integers: what is faster so, and accurate enough, on the engine that is here."""

import numpy as np
import pytest

from edgevit.stages.convolution_forms import RacedForm
from edgevit.stages.convolution_race import _chosen  # what is chosen by given times
from edgevit.stages.deviation import Deviation

DEPTHWISE, FIRST, POINTWISE = "depthwise", "first", "pointwise"
EVERYTHING = frozenset({DEPTHWISE, FIRST, POINTWISE})


def forms(*accuracies):
    """Return the forms of a race, all in float first, with these (KL, SQNR)."""
    floats = (EVERYTHING, frozenset(), frozenset({DEPTHWISE}), frozenset({DEPTHWISE, FIRST}))
    names = ("", "all", "all but depthwise ones", "all but depthwise ones and the first")
    return [
        RacedForm(name, each, Deviation(*found)) for name, each, found in zip(names, floats, accuracies, strict=True)
    ]


def times(*seconds):
    return np.array(seconds) * np.linspace(0.9, 1.1, 15)[:, None]


GOOD = (1e-4, 30.0)


@pytest.mark.parametrize(
    ("seconds", "floats"),
    [
        ((1.0, 0.6, 0.9, 0.9), set()),
        ((1.0, 1.5, 0.6, 0.7), {DEPTHWISE}),
        ((1.0, 0.61, 0.6, 0.605), set()),  # as fast, and more of it in integers
        ((1.0, 1.5, 1.4, 0.8), {DEPTHWISE, FIRST}),
        ((1.0, 1.2, 1.1, 1.3), EVERYTHING),
        ((1.0, 0.99, 0.985, 1.0), EVERYTHING),  # not clearly faster: float is the more exact one
    ],
)
def test_what_is_fastest_is_chosen(seconds, floats):
    assert set(_chosen(forms(GOOD, GOOD, GOOD, GOOD), times(*seconds), "engine").reasons) == set(floats)


def test_a_race_that_is_lost_is_told_with_its_times():
    choice = _chosen(forms(GOOD, GOOD, GOOD, GOOD), times(1.0, 1.5, 1.2, 1.3), "engine")
    assert choice.say == "Convolutions stay float32 with engine: INT8 took 1.20 of the time"
    assert choice.reasons[DEPTHWISE] == "engine is better off with it in float: INT8 took 1.50 of the time"
    assert choice.reasons[POINTWISE] == "engine is better off with it in float: INT8 took 1.20 of the time"


def test_a_race_that_is_won_is_told_with_time_and_accuracy():
    choice = _chosen(forms(GOOD, GOOD, (2e-4, 28.5), GOOD), times(1.0, 1.5, 0.6, 0.7), "engine")
    assert choice.say == (
        "Convolutions in INT8 with engine: all but depthwise ones; 0.60 of the time that it takes with them in float, "
        "KL 0.0002 nats, SQNR 28.5 dB"
    )


def test_what_costs_too_much_accuracy_stays_float_however_fast_it_is():
    poor, fair = (0.05, 12.0), (0.0015, 17.0)
    choice = _chosen(forms((1e-3, 18.0), poor, fair, fair), times(1.0, 0.5, 0.7, 0.8), "engine")
    assert set(choice.reasons) == {DEPTHWISE}
    assert choice.reasons[DEPTHWISE] == (
        "engine is better off with it in float: INT8 had KL 0.05 nats, SQNR 12.0 dB, and KL 0.0015 nats, "
        "SQNR 17.0 dB without"
    )
    none = _chosen(forms((1e-3, 18.0), poor, poor, poor), times(1.0, 0.5, 0.5, 0.5), "engine")
    assert set(none.reasons) == EVERYTHING
    assert "Convolutions stay float32 with engine: INT8 had KL 0.05 nats" in none.say


def test_features_are_judged_by_their_noise():
    choice = _chosen(forms((None, 30.0), (None, 20.0), (None, 26.0), (None, 27.5)), times(1.0, 0.5, 0.6, 0.7), "engine")
    assert set(choice.reasons) == {DEPTHWISE}
    lost = _chosen(forms((None, 23.0), (None, 21.0), (None, 22.0), (None, 22.0)), times(1.0, 0.5, 0.6, 0.7), "engine")
    assert not lost.reasons  # within 3 dB of the Linear layers alone


def test_what_is_not_finite_is_never_chosen():
    broken = (None, -np.inf)
    choice = _chosen(forms(GOOD, broken, broken, broken), times(1.0, 0.5, 0.5, 0.5), "engine")
    assert set(choice.reasons) == EVERYTHING
