"""Which loads are tried, and where the knee of throughput is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.bundle.measured import LoadPoint
from edgevit.evaluation.messages import StreamTimings
from edgevit.evaluation.sweep import MIN_GAIN, knee, loads, point, sweep_of

pytestmark = pytest.mark.usefixtures("all_cores")


def points(throughputs):
    """Return points of one stream each, by their batch."""
    return [
        LoadPoint(batch=batch, streams=1, throughput_ips=ips, p50_ms=1, p99_ms=1) for batch, ips in throughputs.items()
    ]


@pytest.mark.parametrize(
    ("cores", "largest", "batches", "streams"),
    [(4, None, {1, 2, 4, 8, 16, 32}, {1, 2, 4}), (6, 12, {1, 2, 4, 8, 12}, {1, 2, 4, 6}), (1, 1, {1}, {1})],
)
def test_powers_of_two_up_to_what_there_is_are_tried(cores, largest, batches, streams):
    found = loads(cores, largest)
    assert {batch for batch, _ in found} == batches
    assert {number for _, number in found} == streams
    assert len(found) == len(batches) * len(streams)
    assert [batch * number for batch, number in found] == sorted(batch * number for batch, number in found)


@pytest.mark.parametrize(
    ("throughputs", "batch"),
    [
        ({1: 100, 2: 190, 4: 300, 8: 310, 16: 312}, 4),
        ({1: 100, 2: 101, 4: 102}, 1),
        ({1: 100, 2: 190, 4: 360}, None),  # it still gains: the knee is beyond what was tried
        ({1: 100, 2: 105, 4: 200, 8: 205}, 4),  # a step that gains little is no knee if the next gains much
        ({1: 100, 2: 80, 4: 60}, 1),
        ({1: 100}, None),
        ({}, None),
        ({1: 100, 3: 300}, None),  # nothing was doubled
    ],
)
def test_the_knee_is_where_doubling_gains_little_from_then_on(throughputs, batch):
    found = knee(points(throughputs))
    assert (found and found.batch) == batch


def test_of_the_same_load_the_faster_way_counts():
    slow = LoadPoint(batch=4, streams=1, throughput_ips=200, p50_ms=1, p99_ms=1)
    fast = LoadPoint(batch=2, streams=2, throughput_ips=300, p50_ms=1, p99_ms=1)
    assert knee([*points({8: 310}), slow, fast]) == fast


@given(st.dictionaries(st.sampled_from([1, 2, 4, 8, 16, 32]), st.floats(1, 1e6), max_size=6))
def test_a_knee_keeps_its_promise(throughputs):
    found = knee(points(throughputs))
    if found is not None:
        beyond = [load for load in throughputs if load >= found.batch and 2 * load in throughputs]
        assert found.batch in beyond
        assert all(throughputs[2 * load] < (1 + MIN_GAIN) * throughputs[load] for load in beyond)


def test_throughput_is_what_all_streams_do_together():
    found = point(4, 2, StreamTimings(inference_ns=[8_000_000, 12_000_000] * 5))
    assert (found.batch, found.streams, found.p50_ms) == (4, 2, 10)
    assert found.throughput_ips == pytest.approx(2 * 4 / 0.010)


def test_what_disturbed_it_is_said():
    found = sweep_of(points({1: 1, 2: 1}), threads=3, invalid=["too loud", "too hot"])
    assert (found.valid, found.invalid_reason, found.threads, found.streams_are) == (
        False,
        "too loud; too hot",
        3,
        "threads",
    )
