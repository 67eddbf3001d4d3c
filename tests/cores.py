"""The cores of pytest's workers: each has its share, as engines that take all would wait for one another's threads.

What is about several cores asks for all of them: ``pytestmark = pytest.mark.usefixtures("all_cores")``. OpenVINO looks
at the cores once in a process, so that its streams are tested in one of their own: ``in_a_process``.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


def in_a_process(script: str, *arguments: object) -> Any:
    """Run a script with ``arguments`` on all cores, in a process of its own, and return what it prints as JSON."""
    with all_of_them():
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
