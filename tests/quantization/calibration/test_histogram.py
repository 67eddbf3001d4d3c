import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgevit.quantization.calibration.histogram import BINS, StreamingHistogram

#: What lies nearer to 0 than this is 0 to float32 once it is divided by the widest bins here.
SMALLEST = 2.0**-60
NUMBER = (st.floats(-(2.0**60), 2.0**60, width=32) | st.floats(-8, 8, width=32)).map(
    lambda value: value if abs(value) >= SMALLEST else 0.0
)
PARTS = st.lists(arrays(np.float32, st.integers(1, 20), elements=NUMBER), min_size=1, max_size=5)


def counted(parts):
    streaming = StreamingHistogram()
    for part in parts:
        streaming.update(part)
    return streaming


@given(PARTS)
def test_counts_are_those_of_all_values_at_once(parts):
    found = counted(parts).histogram()
    values = np.concatenate(parts).astype(np.float64)
    bins = np.floor(values / found.width).astype(np.int64) - round(found.low / found.width)
    np.testing.assert_array_equal(found.counts, np.bincount(bins))
    assert found.low <= values.min() <= values.max() <= found.edges()[-1]


@given(PARTS, st.randoms())
def test_neither_order_nor_parts_make_a_difference(parts, random):
    whole = counted([np.concatenate(parts)]).histogram()
    assert counted(parts).histogram() == whole
    assert counted(random.sample(parts, len(parts))).histogram() == whole


def test_a_growing_range_makes_bins_wider_and_keeps_them_in_use():
    streaming = StreamingHistogram()
    random = np.random.default_rng(0)
    for size in (1e-6, 1, 1e6):
        streaming.update((size * random.normal(size=1000)).astype(np.float32))
        found = streaming.histogram()
        assert BINS / 2 - 1 <= len(found.counts) <= BINS
    assert found.counts.sum() == 3000


@given(PARTS)
def test_a_histogram_goes_on_from_its_state(parts):
    streaming = StreamingHistogram()
    streaming.restore(counted(parts).state())
    streaming.update(parts[0])
    assert streaming.histogram() == counted([*parts, parts[0]]).histogram()


@pytest.mark.parametrize(
    "change",
    [
        {"counts": np.zeros(3, dtype=np.int64)},
        {"counts": np.full(BINS, -1)},
        {"bins": np.array([5, 5])},
        {"limits": np.array([np.nan, 1.0])},
    ],
)
def test_a_state_that_cannot_be_is_refused(change):
    state = counted([np.arange(9, dtype=np.float32)]).state()
    with pytest.raises(ValueError):  # noqa: PT011 - numpy's, in one case
        StreamingHistogram().restore({**state, **change})


@given(PARTS, st.floats(-4, 4))
def test_magnitudes_and_shifts_keep_every_value_near_its_place(parts, by):
    found = counted(parts).histogram()
    for moved in (found.magnitudes(), found.shifted(by)):
        assert moved.counts.sum() == found.counts.sum()
    values = np.concatenate(parts).astype(np.float64)
    assert found.magnitudes().edges()[-1] == pytest.approx(np.abs(values).max(), abs=1.01 * found.width)
    assert found.shifted(by).edges()[-1] == pytest.approx(values.max() - by, abs=1.01 * found.width + 1e-6)
