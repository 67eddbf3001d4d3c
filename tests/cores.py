"""The cores of pytest's workers: each has its share, as engines that take all would wait for one another's threads.

What is about several cores asks for all of them: ``pytestmark = pytest.mark.usefixtures("all_cores")``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

ALL = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def share(worker: str, workers: int) -> None:
    """Let this thread, and the threads and processes that it starts, run on the cores of ``worker``, such as gw0."""
    if ALL:
        at = int(worker.removeprefix("gw"))
        os.sched_setaffinity(0, ALL[at::workers] or [ALL[at % len(ALL)]])


@contextmanager
def all_of_them() -> Iterator[None]:
    """Let them run on all cores meanwhile."""
    if not ALL:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALL)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)
