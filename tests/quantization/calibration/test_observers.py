import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgevit.quantization.calibration.observers import GROUP, NEW, ChannelObserver, InputObserver, RangeObserver

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
    observer = ChannelObserver(3)
    for image in images:
        observer.update(image)
    found = observer.statistics()
    rows = np.concatenate(images)
    np.testing.assert_array_equal(found.minimum, rows.min(axis=0))
    np.testing.assert_array_equal(found.maximum, rows.max(axis=0))
    np.testing.assert_allclose(found.variance, rows.astype(np.float64).var(axis=0), atol=1e-6, rtol=1e-6)


@given(st.lists(IMAGE, min_size=1, max_size=9))
def test_the_moving_average_is_that_of_jacob_et_al(images):
    found = observe(images).statistics()
    low, high = images[0].min(), images[0].max()
    for image in images[1:]:
        low, high = (1 - NEW) * low + NEW * image.min(), (1 - NEW) * high + NEW * image.max()
    assert (found.moving_minimum, found.moving_maximum) == pytest.approx((low, high), abs=1e-4)


def test_an_input_is_seen_as_a_whole_and_by_channel():
    observer = InputObserver(2)
    observer.update(np.array([[1, -2], [3, 4]], dtype=np.float32))
    found = observer.statistics()
    assert (found.minimum, found.maximum, found.tokens) == (-2, 4, 2)
    np.testing.assert_array_equal(found.channels.minimum, [1, -2])
    assert found.histogram.counts.sum() == 4


@given(st.lists(arrays(np.float32, (20, 3), elements=st.floats(-9, 9, width=32)), min_size=2, max_size=10))
def test_an_observer_that_goes_on_from_its_state_sees_the_same(images):
    whole, first, second = (InputObserver(3) for _ in range(3))
    for image in images:
        whole.update(image)
    for image in images[: len(images) // 2]:
        first.update(image)
    second.restore(first.state())
    for image in images[len(images) // 2 :]:
        second.update(image)
    assert second.statistics() == whole.statistics()
    for name, array in whole.state().items():
        np.testing.assert_array_equal(second.state()[name], array)
