import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgevit.quantization.observers import GROUP, ChannelObserver, InputObserver, RangeObserver

IMAGE = arrays(np.float32, (2, 3), elements=st.floats(-100, 100, width=32))


def observe(images):
    observer = RangeObserver()
    for image in images:
        observer.update(image)
    return observer


@given(st.lists(IMAGE, min_size=1, max_size=3 * GROUP))
def test_ranges_are_those_of_all_images_and_of_groups_on_average(images):
    found = observe(images).statistics()
    assert (found.minimum, found.maximum) == (np.min(images), np.max(images))
    groups = [images[start : start + GROUP] for start in range(0, len(images) - GROUP + 1, GROUP)] or [images]
    assert found.average_minimum == pytest.approx(np.mean([np.min(group) for group in groups]), abs=1e-4)
    assert found.average_maximum == pytest.approx(np.mean([np.max(group) for group in groups]), abs=1e-4)


@given(st.lists(IMAGE, min_size=1, max_size=5))
def test_channels_are_the_last_axis(images):
    observer = ChannelObserver()
    for image in images:
        observer.update(image)
    found = observer.statistics()
    rows = np.concatenate(images)
    np.testing.assert_array_equal(found.minimum, rows.min(axis=0))
    np.testing.assert_array_equal(found.maximum, rows.max(axis=0))
    np.testing.assert_allclose(found.variance, rows.astype(np.float64).var(axis=0), atol=1e-6, rtol=1e-6)


def test_an_input_is_seen_as_a_whole_and_by_channel():
    observer = InputObserver()
    observer.update(np.array([[1, -2], [3, 4]], dtype=np.float32))
    assert (observer.range.statistics().minimum, observer.range.statistics().maximum) == (-2, 4)
    np.testing.assert_array_equal(observer.channels.statistics().minimum, [1, -2])
