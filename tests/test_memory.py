import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.memory import ALLOWED, allowed_for, limited

pytestmark = pytest.mark.usefixtures("all_cores")

MIB = 1 << 20


def limit():
    return resource.getrlimit(resource.RLIMIT_AS)


def test_what_takes_more_fails_and_the_limit_goes_away():
    before = limit()
    with limited(256 * MIB):
        assert limit() != before
        np.zeros(32 * MIB, np.uint8)
        with pytest.raises(MemoryError):
            np.zeros(2048 * MIB, np.uint8)
        with limited(16 * MIB):
            pass
        assert limit() != before
    assert limit() == before
    with pytest.raises(ZeroDivisionError), limited(256 * MIB):
        1 / 0  # noqa: B018
    assert limit() == before
    with limited(None):
        assert limit() == before


def test_the_last_of_several_threads_takes_it_away():
    before = limit()
    inside, leave = threading.Barrier(4), threading.Event()

    def work() -> None:
        with limited(1024 * MIB):
            inside.wait()
            leave.wait()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    inside.wait()
    assert limit() != before
    leave.set()
    for thread in threads:
        thread.join()
    assert limit() == before


def test_a_user_may_allow_more(monkeypatch):
    monkeypatch.delenv(ALLOWED, raising=False)
    assert 4096 * MIB < allowed_for(0) < allowed_for(100 * MIB)
    monkeypatch.setenv(ALLOWED, "100000")
    assert allowed_for(1 << 40) == 100_000 * MIB
    monkeypatch.setenv(ALLOWED, "0")
    assert allowed_for(1) is None
    for given in ("much", "100", "-1"):
        monkeypatch.setenv(ALLOWED, given)
        with pytest.raises(InputError, match=ALLOWED):
            allowed_for(1)


FORKED = """
import os, resource, sys, threading
from edgevit.memory import limited
before = resource.getrlimit(resource.RLIMIT_AS)
inside, leave = threading.Event(), threading.Event()
def load():
    with limited(1 << 28):
        inside.set()
        leave.wait()
loading = threading.Thread(target=load)
loading.start()
inside.wait()
if child := os.fork():
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    leave.set()
    loading.join()
    sys.exit(status or resource.getrlimit(resource.RLIMIT_AS) != before)
with limited(1 << 30):
    pass
os._exit(resource.getrlimit(resource.RLIMIT_AS) != before)
"""


def test_a_process_that_is_forked_meanwhile_has_no_limit():
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).parents[1])
