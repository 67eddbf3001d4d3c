"""Conditions read from made-up /proc and /sys trees."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgevit.evaluation.conditions import Conditions, Snapshot, clock_loss, other_load
from edgevit.system import usable_cpus

HERTZ = os.sysconf("SC_CLK_TCK")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def snapshot(wall=0.0, busy=0.0, stolen=0.0, own=0.0, throttled=0):
    return Snapshot(wall, busy, stolen, own, throttled)


def test_own_work_is_no_other_load():
    assert other_load(snapshot(), snapshot(wall=10, busy=20, own=20), cores=2) == []
    assert other_load(snapshot(), snapshot(wall=10, busy=20, own=18.1), cores=2) == []


def test_other_load_is_said_by_how_much():
    assert other_load(snapshot(), snapshot(wall=10, busy=20, own=10), cores=2) == [
        "other processes took 50 % of the cores' time, more than 10 %"
    ]
    assert other_load(snapshot(), snapshot(wall=10, stolen=5), cores=2) == [
        "the hypervisor took away 25 % of the cores' time, more than 10 %"
    ]


def test_throttling_during_the_run_is_told_and_before_it_is_not():
    assert other_load(snapshot(throttled=7), snapshot(wall=1, throttled=7), cores=2) == []
    assert other_load(snapshot(throttled=7), snapshot(wall=1, throttled=9), cores=2) == [
        "the processor throttled itself 2 times because of heat"
    ]


@pytest.mark.parametrize(
    ("clocks", "loss"),
    [([], 0), ([2000, 1000], 0), ([2000] * 9, 0), ([2000] * 3 + [1900] * 6, 0), ([2000] * 5 + [1500] * 4, 0.25)],
)
def test_a_clock_that_falls_is_noticed(clocks, loss):
    assert clock_loss(clocks) == pytest.approx(loss)


def test_counters_are_read_for_the_usable_cores_only(tmp_path):
    cpu = min(usable_cpus())
    stat = tmp_path / "proc/stat"
    write(stat, f"cpu 1 1 1 1 1 1 1 1 0 0\ncpu{cpu} 10 0 10 500 0 0 0 0 0 0\ncpu9999 0 0 0 0 0 0 0 0 0 0\nintr 5\n")
    state = tmp_path / "sys/class/thermal/cooling_device0/cur_state"
    write(state, "0\n")
    write(state.with_name("type"), "cpufreq-cpu0\n")
    fan = tmp_path / "sys/class/thermal/cooling_device1"
    write(fan / "type", "pwm-fan\n")
    write(fan / "cur_state", "0\n")
    counter = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/core_throttle_count"
    write(counter, "3\n")
    conditions = Conditions([], root=tmp_path)
    conditions.sample()
    assert conditions.invalid_reasons() == []

    busy = 10 + 10_000 * HERTZ
    write(stat, f"cpu{cpu} {busy} 0 10 500 0 0 0 0 0 0\ncpu9999 {busy} 0 0 0 0 0 0 0 0 0\n")
    write(counter, "4\n")
    write(state, "2\n")
    write(fan / "cur_state", "3\n")
    conditions.sample()
    load, throttled, lowered = conditions.invalid_reasons()
    assert "other processes took" in load
    assert "1 times" in throttled
    assert "lowered the processor's clock" in lowered


def test_a_system_that_tells_nothing_is_not_judged(tmp_path):
    conditions = Conditions([1], root=tmp_path)
    conditions.sample()
    assert conditions.invalid_reasons() == []


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")
def test_this_process_counts_its_own_work_as_its_own():
    conditions = Conditions([])
    start, before = time.process_time(), conditions._snapshot()
    while time.process_time() - start < 0.2:
        pass
    after = conditions._snapshot()
    assert after.own_s - before.own_s == pytest.approx(0.2, abs=0.1)
    assert after.busy_s - before.busy_s >= 0.1


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")
def test_a_worker_s_work_counts_as_our_own_even_after_its_end():
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        conditions = Conditions([worker.pid])
        before = conditions._snapshot().own_s
        worker.stdout.readline()
        running = conditions._snapshot().own_s
        worker.communicate("\n")
        ended = conditions._snapshot().own_s
    assert running - before >= 0.3
    assert ended - before >= 0.3
    assert ended == pytest.approx(running, abs=0.2)
