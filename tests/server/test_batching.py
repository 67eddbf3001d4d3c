"""The queue in front of the model: bounded, in batches, and nothing that was accepted is lost."""

import threading
from concurrent.futures import wait

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.errors import BundleError
from edgevit.server.batching import Batcher, Busy

pytestmark = pytest.mark.usefixtures("all_cores")


def images(count, value=0):
    return np.full((count, 1, 2, 2), value, np.float32)


def sums(batch):
    return batch.sum(axis=(1, 2, 3))[:, None]


@given(sizes=st.lists(st.integers(1, 5), max_size=20), batch=st.integers(1, 8), workers=st.integers(1, 3))
@settings(max_examples=40)
def test_each_request_gets_its_own_rows(sizes, batch, workers):
    seen = []
    batcher = Batcher(sums, batch=batch, most=32, workers=workers, seen=lambda count, _: seen.append(count))
    waiting = [batcher.submit(images(size, value)) for value, size in enumerate(sizes)]
    for value, (size, rows) in enumerate(zip(sizes, waiting, strict=True)):
        np.testing.assert_array_equal(rows.result(10), np.full((size, 1), 4 * value))
    batcher.close()
    assert sum(seen) == sum(sizes)
    assert all(count <= max(batch, *sizes) for count in seen)


@pytest.fixture
def gate():
    """Return a model that waits, and what lets it go on."""
    opened, entered = threading.Event(), threading.Event()

    def infer(batch):
        entered.set()
        assert opened.wait(10)
        return sums(batch)

    return infer, opened, entered


def test_a_full_queue_refuses_and_what_was_accepted_is_answered(gate):
    infer, opened, entered = gate
    seen = []
    batcher = Batcher(infer, batch=4, most=3, workers=1, seen=lambda count, _: seen.append(count))
    accepted = [batcher.submit(images(1, 0))]
    assert entered.wait(10)
    accepted += [batcher.submit(images(1, value)) for value in (1, 2, 3)]
    with pytest.raises(Busy, match="full"):
        batcher.submit(images(1))
    assert batcher.waiting == 3
    closing = threading.Thread(target=batcher.close)
    closing.start()
    opened.set()
    closing.join(10)
    assert [rows.result(0)[0, 0] for rows in accepted] == [0, 4, 8, 12]
    assert seen == [1, 3]
    with pytest.raises(Busy, match="shutting down"):
        batcher.submit(images(1))
    batcher.close()


def test_what_nobody_waits_for_any_more_is_not_computed(gate):
    infer, opened, entered = gate
    seen = []
    batcher = Batcher(infer, batch=1, most=3, workers=1, seen=lambda count, _: seen.append(count))
    first = batcher.submit(images(1))
    assert entered.wait(10)
    gone, last = batcher.submit(images(1)), batcher.submit(images(1))
    assert gone.cancel()
    opened.set()
    wait([first, last], 10)
    batcher.close()
    assert seen == [1, 1]


@pytest.mark.parametrize("error", [BundleError("broken", remedy="none"), RuntimeError("unforeseen"), MemoryError()])
def test_an_error_of_the_model_is_that_requests_and_the_next_is_answered(error):
    def infer(batch):
        if batch[0, 0, 0, 0] == 1:
            raise error
        return sums(batch)

    batcher = Batcher(infer, batch=1, most=8, workers=1, seen=lambda *_: None)
    bad, good = batcher.submit(images(1, 1)), batcher.submit(images(1, 2))
    with pytest.raises(type(error)):
        bad.result(10)
    assert good.result(10)[0, 0] == 8
    batcher.close()
