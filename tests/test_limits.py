import os
import subprocess
import sys
import threading

import pytest

from edgevit.errors import InputError
from edgevit.limits import TIME_ALLOWED, seconds_for, still_working, within_limits
from edgevit.memory import ALLOWED

MIB = 1 << 20


def test_work_gives_what_it_returns_and_raises(monkeypatch):
    for allowed in ("", "0"):
        if allowed:
            monkeypatch.setenv(TIME_ALLOWED, allowed)
        assert within_limits(0, "a file", lambda: 5) == 5
        with pytest.raises(TimeoutError, match="its own"):
            within_limits(0, "a file", raises(TimeoutError("its own")))
        with pytest.raises(InputError, match="a file takes more memory"):
            within_limits(0, "a file", raises(MemoryError()))


def raises(error):
    def work():
        raise error

    return work


def test_work_that_takes_longer_is_not_waited_for(monkeypatch):
    monkeypatch.setenv(TIME_ALLOWED, "1")
    go_on, done = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait()
        done.set()

    with pytest.raises(InputError, match="a file takes more than 1 s") as caught:
        within_limits(0, "a file", work)
    assert TIME_ALLOWED in caught.value.remedy
    assert still_working()
    go_on.set()
    assert done.wait(10)


def test_a_command_does_not_wait_for_what_it_has_given_up():
    program = """
import sys, threading
from edgevit import cli
from edgevit.cli import app
from edgevit.limits import within_limits

def run(arguments):
    try:
        within_limits(0, "a file", threading.Event().wait)
    except Exception:
        print("given up")
    return 2

app.run = run
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, TIME_ALLOWED: "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "given up\n", "")


def test_more_time_for_larger_files(monkeypatch):
    monkeypatch.delenv(TIME_ALLOWED, raising=False)
    assert 0 < seconds_for(0) < seconds_for(100 * MIB)
    monkeypatch.setenv(TIME_ALLOWED, "7")
    assert seconds_for(100 * MIB) == 7
    monkeypatch.setenv(TIME_ALLOWED, "0")
    assert seconds_for(0) is None


@pytest.mark.parametrize("given", ["-1", "many", "1.5", "9" * 20, "9" * 5000])
def test_a_limit_that_is_no_number_is_refused(monkeypatch, given):
    monkeypatch.setenv(TIME_ALLOWED, given)
    with pytest.raises(InputError, match="EDGEVIT_LOAD_SECONDS"):
        within_limits(0, "a file", int)


def test_limits_are_read_before_anything_is_opened(monkeypatch):
    monkeypatch.setenv(ALLOWED, "1")
    with pytest.raises(InputError, match=ALLOWED):
        within_limits(0, "a file", raises(AssertionError()))
