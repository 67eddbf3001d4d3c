"""Work that threads do ahead: in order, and no further ahead than asked."""

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from edgevit.futures import in_order


@given(count=st.integers(0, 12), ahead=st.integers(0, 5))
def test_in_order_and_never_further_ahead_than_asked(count, ahead):
    started = []

    def start(pool):
        for number in range(count):
            started.append(number)
            yield number, pool.submit(lambda number=number: number * number)

    with ThreadPoolExecutor(3) as pool:
        for taken, (number, future) in enumerate(in_order(start(pool), ahead)):
            assert (number, future.result()) == (taken, taken * taken)
            assert len(started) <= taken + 1 + ahead
    assert len(started) == count
