import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgevit.quantization.observers import GROUP, RangeObserver

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


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_forgotten(bad):
    one = np.ones((2, 3), dtype=np.float32)
    broken = one.copy()
    broken[1, 1] = bad
    assert observe([one, one]).finite()
    assert not observe([one, broken, one]).finite()
    assert not observe([broken, one]).finite()
