"""Joules within spans of time, from samples on a clock that the test moves."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.machine.meter import Meter
from edgevit.machine.power import Channel, PowerSource


def metered(channels, moments):
    """Return a meter that has taken a sample at each of ``moments``; ``channels`` are of functions of the time."""
    clock = [0.0]
    made = [
        Channel(lambda value=value: value(clock[0]), counts=counts, wraps_at=wraps_at)
        for value, counts, wraps_at in channels
    ]
    meter = Meter(PowerSource("made up", "a test", tuple(made)), clock=lambda: clock[0])
    for moment in moments:
        clock[0] = moment
        meter.sample()
    return meter


@given(st.lists(st.floats(0.01, 0.1), min_size=40, max_size=60), st.floats(0.1, 0.6), st.floats(0.1, 1.0))
def test_constant_power_is_exact_wherever_samples_lie(steps, start, length):
    moments = [0.0, *itertools.accumulate(steps)]
    meter = metered([(lambda now: 7.5, False, None)], moments)
    end = min(start + length, moments[-1])
    if start < end:
        assert meter.joules(start, end) == pytest.approx(7.5 * (end - start))


def test_power_is_added_up_by_trapezoids():
    moments = np.arange(0, 4, 0.01)
    meter = metered([(lambda now: 10 + 5 * np.sin(now), False, None)], moments)
    expected = 10 * 2.0 + 5 * (np.cos(1.0) - np.cos(3.0))
    assert meter.joules(1.0, 3.0) == pytest.approx(expected, rel=1e-4)


def test_a_counter_that_starts_again_goes_on():
    wraps_at = 262_143.328850
    meter = metered([(lambda now: (262_100 + 60 * now) % wraps_at, True, wraps_at)], np.arange(0, 4, 0.02))
    assert meter.joules(0.5, 3.5) == pytest.approx(180.0)


def test_a_counter_of_unknown_range_that_starts_again_loses_no_more_than_it_must():
    meter = metered([(lambda now: 100 * now if now < 1 else 100 * (now - 1), True, None)], np.arange(0, 2, 0.02))
    assert 0 < meter.joules(0.5, 1.5) <= 100


def test_channels_are_added_up():
    channels = [(lambda now: 3 * now, True, None), (lambda now: 4.0, False, None)]
    assert metered(channels, np.arange(0, 2, 0.05)).joules(0.5, 1.5) == pytest.approx(7.0)


@pytest.mark.parametrize("span", [(-1.0, 0.5), (0.5, 9.0), (0.5, 0.5), (0.8, 0.6)])
def test_what_samples_do_not_cover_is_not_told(span):
    assert metered([(lambda now: 1.0, False, None)], np.arange(0, 1, 0.1)).joules(*span) is None


def test_a_span_with_a_hole_in_it_is_not_told():
    moments = [*np.arange(0, 1, 0.05), *np.arange(2, 3, 0.05)]
    meter = metered([(lambda now: 1.0, False, None)], moments)
    assert meter.joules(0.5, 2.5) is None
    assert meter.joules(0.1, 0.8) == pytest.approx(0.7)


def test_a_sensor_that_cannot_be_read_for_a_while_leaves_a_hole():
    meter = metered([(lambda now: None if 0.4 < now < 1.6 else 1.0, False, None)], np.arange(0, 2, 0.05))
    assert meter.joules(0.2, 1.8) is None


def test_a_thread_samples_while_it_is_entered():
    taken = []
    channel = Channel(lambda: taken.append(1) or float(len(taken)), counts=True)
    with Meter(PowerSource("made up", "a test", (channel,))):
        while len(taken) < 4:
            pass
    count = len(taken)
    assert count >= 5  # one more at the end
    assert len(taken) == count
