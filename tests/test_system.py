"""What the system tells, in made-up /proc and /sys trees, and where there are none."""

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_code import PACKAGE, called, each_room, tree

from edgevit import system

LINUX = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's affinity")
def test_cores_are_those_that_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert system.usable_cores() == 1
        assert system.usable_cpus() == {min(allowed)}
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"MemTotal: 4096000 kB\nMemAvailable:    2048000 kB\n", (4000, 2000)),
        (b"MemTotal: 4096000 kB\n", (4000, None)),
        (b"MemAvailable: x\nMemTotal:\n", (None, None)),
        (b"MemAvailable: \xff kB\n", (None, None)),
    ],
)
def test_memory_is_what_linux_tells(tmp_path, text, expected):
    write(tmp_path / "proc/meminfo", text)
    assert system.memory(tmp_path) == expected


@LINUX
def test_this_process_is_told_of():
    assert system.address_space() > 10 << 20
    assert 1 < system.peak_rss_mb() <= system.address_space() / (1 << 20)
    assert system.memory().available_mb <= system.memory().total_mb


def test_a_system_without_proc_tells_nothing_and_breaks_nothing(tmp_path):
    assert system.memory(tmp_path) == (None, None)
    assert system.cpuinfo(tmp_path) == system.board(tmp_path) == ""
    assert system.core_seconds([0, 1], tmp_path) == (0, 0)
    assert system.process_seconds(1, tmp_path) == 0
    assert system.clocks_khz([0], tmp_path) == []
    assert system.throttle_events([0], tmp_path) == system.cooling_steps(tmp_path) == 0


def test_without_proc_the_peak_is_getrusages(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "_ROOT", tmp_path)
    assert system.address_space() is None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(sys, "platform", "linux")
    assert system.peak_rss_mb() == pytest.approx(used / 1024, rel=0.05)
    monkeypatch.setattr(sys, "platform", "darwin")  # which counts in bytes
    assert system.peak_rss_mb() == pytest.approx(used / 1024**2, rel=0.05)


def test_it_is_imported_where_there_are_no_affinities():
    code = """
import os
del os.sched_getaffinity
from edgevit import system
assert system.usable_cpus() == frozenset()
assert system.usable_cores() == os.cpu_count()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@given(content=st.binary(max_size=100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_are_read_from_anything(tmp_path, content):
    write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", content)
    write(tmp_path / "proc/meminfo", b"MemTotal: " + content)
    (clock,) = system.clocks_khz([0], tmp_path)
    assert clock >= 0
    system.memory(tmp_path)


@each_room
def test_nothing_else_reads_proc_or_sys(paths):
    for path in paths:
        if path == PACKAGE / "system.py" or path.is_relative_to(PACKAGE / "machine"):
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.startswith(("/proc", "/sys", "proc/", "sys/")), called(path)
            if isinstance(node, ast.Attribute) and node.attr == "sched_getaffinity":
                assert ast.unparse(node) != "os.sched_getaffinity", called(path)
