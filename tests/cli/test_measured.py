"""What is said beside the table of latencies."""

import pytest
from msgspec.structs import replace

from edgevit.bundle.manifest import Environment, Latency
from edgevit.bundle.measured import EndToEnd, Energy, LoadPoint, MachineState, Sweep
from edgevit.cli.measured import measured_beside

pytestmark = pytest.mark.usefixtures("all_cores")

PLACE = Environment(machine="m", cpu="c", cpu_features=(), cores=2, os="o", python="3", packages={}, measured_at="t")
BARE = Latency(
    batch=1,
    threads=2,
    p50_ms=1.0,
    p90_ms=1.0,
    p99_ms=1.0,
    throughput_ips=1000.0,
    speedup_vs_float32=1.0,
    speedup_ci95=(1.0, 1.0),
    rss_mb=75.4,
    cold_start_ms=300.0,
    valid=True,
    invalid_reason=None,
    environment=PLACE,
)
KNEE = LoadPoint(batch=4, streams=1, throughput_ips=900.0, p50_ms=1, p99_ms=2)
MOST = LoadPoint(batch=8, streams=2, throughput_ips=950.0, p50_ms=1, p99_ms=2)


def said(**found):
    return list(measured_beside({"int8": replace(BARE, **found)}))


def test_the_start_and_the_memory_are_told():
    assert said(load_ms=1140.2, first_ms=10.6) == [
        "int8: loads in 1,140 ms, first inference 10.6 ms; 75 MiB of memory at most"
    ]


def test_answers_energy_and_throughput_are_told():
    whole = EndToEnd(image="i", images=9, p50_ms=3.0, p90_ms=4, p99_ms=5, decode_ms=0.9, prepare_ms=1.0, model_ms=1.1)
    energy = Energy(
        mj=12.5, mj_ci95=(12.0, 13.0), source="s", covers="the processor", idle_w=2.0, load_w=9.0, blocks=30
    )
    swept = Sweep(streams_are="threads", threads=2, min_gain=0.1, points=(KNEE, MOST), knee=KNEE)
    (line,) = said(end_to_end=whole, energy=energy, sweep=swept)
    assert "end to end 3.00 ms (decode 0.900, prepare 1.00, model 1.10)" in line
    assert "12.5 mJ (12 to 13) above 2 W of idle power, for the processor" in line
    assert "at most 950 images/s (batch 8, 2 streams), knee at 900 images/s (batch 4, 1 stream)" in line


def test_a_sweep_without_knee_or_points_is_told():
    swept = Sweep(streams_are="threads", threads=2, min_gain=0.1, points=(MOST,), valid=False, invalid_reason="loud")
    assert "(batch 8, 2 streams), no knee, in doubt: loud" in said(sweep=swept)[0]
    assert "no throughput: loud" in said(sweep=replace(swept, points=()))[0]


def test_the_machine_is_told_as_far_as_it_tells():
    board = MachineState(
        clock_mhz=(1190.4, 1728, 1728),
        temperature_c=(49.1, 61.5),
        governor="schedutil",
        power_mode="nvpmodel 2 (MAXN_SUPER)",
        on_battery=True,
        other_load=0.031,
        throttled=True,
        throttle_reasons=("the board throttled",),
        rounds=32,
        dropped=2,
    )
    assert said(machine=board)[1] == (
        "machine: 1190 to 1728 MHz, 49 °C, at most 62, schedutil, nvpmodel 2 (MAXN_SUPER), on battery, "
        "others took 3 % of the cores' time, the board throttled, 2 of 32 rounds were disturbed and do not count"
    )
    assert len(said(machine=MachineState())) == 1


def test_why_there_is_no_energy_is_told_once_and_without_marks_that_fool():
    found = replace(BARE, energy_reason="only \x1b[31mroot may")
    lines = list(measured_beside({"one": found, "two": found}))
    assert lines[-1] == "no energy: only  [31mroot may"
    assert len(lines) == 3
