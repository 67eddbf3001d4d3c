"""NumPy's BLAS has one thread while anybody wants that, and what it had afterwards."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from edgevit.quantization.blas import one_blas_thread

pytestmark = pytest.mark.usefixtures("all_cores")


def threads_of_blas():
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def test_users_that_overlap():
    np.ones((4, 4)) @ np.ones((4, 4))
    before, inside, leave = threads_of_blas(), threading.Event(), threading.Event()

    def other():
        with one_blas_thread():
            inside.set()
            assert leave.wait(10)

    thread = threading.Thread(target=other)
    with one_blas_thread():
        thread.start()
        assert inside.wait(10)
        assert set(threads_of_blas()) == {1}
    assert set(threads_of_blas()) == {1}  # the other one is not done
    leave.set()
    thread.join()
    assert threads_of_blas() == before
