"""A run that ends once it is precise: at few looks, and with intervals that cover what they say."""

import numpy as np
import pytest

from edgevit import statistics
from edgevit.evaluation.stopping import CONFIDENCE, UntilPrecise


def test_it_is_looked_at_when_as_many_rounds_are_done_as_the_last_look_said():
    until, looked = UntilPrecise(0.02), []

    def width(rounds):
        looked.append(rounds)
        return 0.04 * (20 / rounds) ** 0.5

    ended = next(rounds for rounds in range(1, 1000) if until(rounds, lambda rounds=rounds: width(rounds)))
    assert looked == [20, 88]  # 1.1 times four times as many
    assert ended == 88


def test_steps_are_not_too_small():
    until = UntilPrecise(0.02)
    assert not until(20, lambda: 0.0201)
    assert not until(24, lambda: 0.0)
    assert until(25, lambda: 0.0)


def test_what_varies_without_end_is_never_precise():
    until = UntilPrecise(0.02)
    assert not until(20, lambda: float("inf"))
    assert not until(10_000, lambda: 0.0)


@pytest.mark.parametrize("noise", ["normal", "skewed"])
def test_intervals_of_runs_that_ended_once_they_were_precise_cover_the_truth(noise):
    rng = np.random.default_rng(4)
    draws = {"normal": lambda n: rng.normal(size=n), "skewed": lambda n: rng.exponential(1, n) - np.log(2)}
    hits = 0
    for _ in range(1000):
        ratios = (2 * (1 + 0.035 * draws[noise](400))).tolist()
        until, rounds = UntilPrecise(0.02), 20

        def half_width(ratios=ratios):
            low, high = statistics.median_interval(ratios[:rounds], confidence=CONFIDENCE)  # noqa: B023
            return (high - low) / 2 / float(np.median(ratios[:rounds]))  # noqa: B023

        while rounds < 400 and not until(rounds, half_width):
            rounds = min(400, until._next)
        low, high = statistics.median_interval(ratios[:rounds], confidence=CONFIDENCE)
        hits += low <= 2 <= high
    assert 930 <= hits <= 975
