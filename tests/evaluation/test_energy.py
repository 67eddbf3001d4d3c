"""Energy per inference: what is subtracted, and whether intervals cover the truth."""

import numpy as np
import pytest

from edgevit.evaluation.conditions import Conditions
from edgevit.evaluation.energy import Drawn, energy_of, measure_idle, net_interval
from edgevit.machine.meter import Meter
from edgevit.machine.power import Channel, PowerSource
from edgevit.progress import SILENT

SOURCE = PowerSource("RAPL package-0", "processor", ())


def test_idle_power_is_taken_off():
    drawn = [Drawn(joules=3.0, seconds=0.5, inferences=50)] * 12
    found = energy_of(drawn, [2.0] * 20, SOURCE, seed=0)
    assert found.mj == pytest.approx((3.0 - 2.0 * 0.5) / 50 * 1000)
    assert found.mj_ci95 == pytest.approx((found.mj, found.mj))
    assert (found.idle_w, found.load_w, found.blocks) == pytest.approx((2.0, 6.0, 12))
    assert (found.source, found.covers) == ("RAPL package-0", "processor")


@pytest.mark.parametrize(("blocks", "idle", "words"), [(4, 20, "4 blocks only"), (20, 3, "3 stretches of idle time")])
def test_too_few_samples_are_no_figure(blocks, idle, words):
    assert words in energy_of([Drawn(3.0, 0.5, 50)] * blocks, [2.0] * idle, SOURCE, seed=0)


@pytest.mark.parametrize("blocks", [10, 24])
def test_intervals_of_energy_cover_it_in_95_of_100_runs(blocks):
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(1000):
        seconds = 0.3 * (1 + 0.02 * rng.normal(size=blocks))
        idle_w = 5 + 0.3 * rng.normal(size=20)
        joules = 5 * seconds + 3 + 0.2 * rng.normal(size=blocks)
        _, low, high = net_interval(joules, seconds, idle_w, seed=trial)
        hits += low <= 3 <= high
    assert 930 <= hits <= 970


def test_what_idle_power_is_uncertain_by_widens_the_interval():
    rng = np.random.default_rng(6)
    joules, seconds = 3 + 0.01 * rng.normal(size=20), np.full(20, 0.5)
    _, low, high = net_interval(joules, seconds, np.full(20, 2.0), seed=0)
    _, lower, higher = net_interval(joules, seconds, 2 + rng.normal(size=20), seed=0)
    assert higher - lower > 5 * (high - low)


@pytest.fixture
def quick(monkeypatch):
    for name in ("_LEAST_S", "_LEAST_LAGGING_S", "_MOST_S", "_SETTLE_S"):
        monkeypatch.setattr(f"edgevit.evaluation.energy.{name}", 0.03)


@pytest.mark.usefixtures("quick")
def test_the_idle_machine_is_measured(tmp_path):
    source = PowerSource("made up", "a test", (Channel(lambda: 4.0, counts=False),))
    with Meter(source) as meter:
        meter._ended.set()  # samples are taken here alone
        for _ in range(3):
            meter.sample()
        found = measure_idle(meter, Conditions([], root=tmp_path), 1.0, SILENT)
    assert found.reason is None
    assert all(watts == pytest.approx(4.0) for watts in found.watts)


@pytest.mark.usefixtures("quick")
def test_a_machine_that_is_not_idle_gives_no_idle_power(monkeypatch, tmp_path):
    monkeypatch.setattr("edgevit.evaluation.energy.too_much", lambda shares: ["other processes took 40 %"])
    source = PowerSource("made up", "a test", (Channel(lambda: 4.0, counts=False),))
    with Meter(source) as meter:
        found = measure_idle(meter, Conditions([], root=tmp_path), 1.0, SILENT)
    assert found.watts == ()
    assert found.reason == "idle power could not be measured: other processes took 40 %"
