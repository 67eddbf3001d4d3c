"""Work that threads do ahead: in order or as it gets done, and no further ahead than asked."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.futures import as_done, in_order

pytestmark = pytest.mark.usefixtures("all_cores")


def squares(pool, count, started):
    """Yield numbers with their squares, which ``pool`` computes, and note which were started."""
    for number in range(count):
        started.append(number)
        yield number, pool.submit(pow, number, 2)


@given(count=st.integers(0, 12), ahead=st.integers(0, 5))
def test_in_order_and_never_further_ahead_than_asked(count, ahead):
    started = []
    with ThreadPoolExecutor(3) as pool:
        for taken, (number, future) in enumerate(in_order(squares(pool, count, started), ahead)):
            assert (number, future.result()) == (taken, taken * taken)
            assert len(started) <= taken + 1 + ahead
    assert len(started) == count


@given(count=st.integers(0, 12), at_once=st.integers(1, 5))
def test_all_come_as_they_are_done_and_never_more_at_once_than_asked(count, at_once):
    started, found = [], []
    with ThreadPoolExecutor(3) as pool:
        for number, future in as_done(squares(pool, count, started), at_once):
            assert future.done()
            assert future.result() == number * number
            found.append(number)
            assert len(started) - len(found) < at_once
    assert sorted(found) == list(range(count))


def test_what_is_done_first_comes_first():
    late = Event()
    with ThreadPoolExecutor(2) as pool:
        taken = as_done([("slow", pool.submit(late.wait)), ("quick", pool.submit(int))], at_once=2)
        assert next(taken)[0] == "quick"
        late.set()
        assert next(taken)[0] == "slow"
