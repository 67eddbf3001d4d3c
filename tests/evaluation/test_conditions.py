"""Conditions read from boards' files (tests/boards.py), and from this machine."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boards import AMD_SERVER, BOARDS, CPUS, INTEL_LAPTOP, JETSON_ORIN_NANO, cores, stat, write

from edgevit.evaluation.conditions import Conditions, Counters, clock_loss, shares_between, too_much
from edgevit.machine.gpus import Gpus
from edgevit.machine.nvml import GpuReading

pytestmark = pytest.mark.usefixtures("all_cores")

HERTZ = os.sysconf("SC_CLK_TCK")


def counters(wall=0.0, busy=1.0, stolen=0.0, own=0.0):
    return Counters(wall, busy, stolen, own)


def between(end, start=None):
    return too_much(shares_between(start or counters(), end, cores=2))


def test_own_work_is_no_other_load():
    assert between(counters(wall=10, busy=21, own=20)) == []
    assert between(counters(wall=10, busy=21, own=18.1)) == []


def test_other_load_is_said_by_how_much():
    assert between(counters(wall=10, busy=21, own=10)) == [
        "other processes took 50 % of the cores' time, more than 10 %"
    ]
    assert between(counters(wall=10, stolen=5)) == ["the hypervisor took away 25 % of the cores' time, more than 10 %"]


def test_a_short_round_is_not_judged_by_a_tick_or_two():
    shares = shares_between(counters(), counters(wall=0.05, busy=1.03), cores=2)
    assert too_much(shares)
    assert not too_much(shares, slack_s=2 * 2 / 100)


@pytest.mark.parametrize(
    ("clocks", "loss"),
    [([], 0), ([2000, 1000], 0), ([2000] * 9, 0), ([2000] * 3 + [1900] * 6, 0), ([2000] * 5 + [1500] * 4, 0.25)],
)
def test_a_clock_that_falls_is_noticed(clocks, loss):
    assert clock_loss(clocks) == pytest.approx(loss)


def watched(conditions, root, *changes):
    """Return what was watched in rounds, in each of which one of ``changes`` happens."""
    found = []
    for change in changes:
        conditions.begin()
        write(root, change)
        found.append(conditions.end())
    return found


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_that_is_left_alone_is_fit(tmp_path, board):
    root = write(tmp_path, BOARDS[board] | stat(100))
    conditions = Conditions([], root=root)
    rounds = watched(conditions, root, *[{}] * 12)
    assert not any(each.reasons for each in rounds)
    assert conditions.invalid_reasons(rounds) == []


def test_a_jetson_is_summed_up(tmp_path):
    root = write(tmp_path, JETSON_ORIN_NANO | stat(100))
    hot = {"sys/class/thermal/thermal_zone8/temp": "61500"}
    conditions = Conditions([], root=root)
    rounds = watched(conditions, root, {}, cores(1_190_400, "schedutil", 729_600, 1_728_000) | hot, {})
    found = conditions.summary(rounds, rounds)
    assert found.clock_mhz == (1190.4, 1728, 1728)
    assert len(found.core_clocks_mhz) == len(CPUS)
    assert set(found.core_clocks_mhz) <= {1190.4, (1190.4 + 1728) / 2, 1728}
    assert found.temperature_c == (49.062, 61.5)
    assert (found.governor, found.power_mode) == ("schedutil", "nvpmodel 2 (MAXN_SUPER)")
    assert (found.throttled, found.throttle_reasons, found.on_battery) == (False, (), None)
    assert (found.other_load, found.steal, found.rounds, found.dropped) == (0.0, 0.0, 3, 0)


def test_a_round_in_which_the_board_throttles_is_disturbed_and_the_next_is_not(tmp_path):
    root = write(tmp_path, JETSON_ORIN_NANO | stat(100))
    conditions = Conditions([], root=root)
    over = {"sys/class/hwmon/hwmon3/oc3_event_cnt": "5"}
    before, during, after = watched(conditions, root, {}, over, {})
    reason = "the board throttled because of instantaneous over-current"
    assert (before.reasons, during.reasons, after.reasons) == ((), (reason,), ())
    assert conditions.invalid_reasons([before, after]) == []
    assert conditions.invalid_reasons([before, during, after]) == [reason]
    kept = conditions.summary([before, after], [before, during, after])
    assert (kept.throttled, kept.throttle_reasons) == (True, (reason,))
    assert (kept.rounds, kept.dropped, kept.dropped_reasons) == (3, 1, (reason,))


def test_counters_are_read_for_the_usable_cores_only(tmp_path):
    root = write(tmp_path, AMD_SERVER | stat(100))
    conditions = Conditions([], root=root)
    text = (root / "proc/stat").read_text()
    (quiet,) = watched(conditions, root, {"proc/stat": f"{text}cpu9999 {10_000 * HERTZ} 0 0 0 0 0 0 0 0 0"})
    assert quiet.reasons == ()
    (loud,) = watched(conditions, root, stat(100 + 10_000 * HERTZ))
    assert "other processes took" in loud.reasons[0]


@pytest.mark.parametrize(
    ("board", "change", "reason"),
    [
        (AMD_SERVER, cores(2_450_000, "powersave", 1, 2), "the governor changed from performance to powersave"),
        (INTEL_LAPTOP, {"sys/firmware/acpi/platform_profile": "low-power"}, "changed from balanced to low-power"),
        (INTEL_LAPTOP, {"sys/class/power_supply/AC/online": "1"}, "the machine went off its battery"),
        (
            JETSON_ORIN_NANO,
            {"var/lib/nvpmodel/status": "pmode:0000"},
            r"from nvpmodel 2 \(MAXN_SUPER\) to nvpmodel 0 \(15W\)",
        ),
    ],
)
def test_settings_that_change_on_the_way_make_a_run_invalid(tmp_path, board, change, reason):
    root = write(tmp_path, board | stat(100))
    conditions = Conditions([], root=root)
    rounds = watched(conditions, root, {}, change)
    (said,) = conditions.invalid_reasons(rounds)
    assert re.search(reason, said)


def test_a_clock_that_falls_over_the_rounds_makes_a_run_invalid(tmp_path):
    root = write(tmp_path, AMD_SERVER | stat(100))
    conditions = Conditions([], root=root)
    slower = cores(1_500_000, "performance", 1_500_000, 2_450_000)
    rounds = watched(conditions, root, *[{}] * 4, *[slower] * 4)
    assert conditions.invalid_reasons(rounds) == ["the processor's clock fell by 39 % during the run"]


def test_a_gpu_whose_clock_falls_makes_a_run_invalid(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    root = write(tmp_path, JETSON_ORIN_NANO | stat(100))
    conditions = Conditions([], root=root, gpus=Gpus(root))
    slower = {"sys/class/devfreq/17000000.gpu/cur_freq": "510000000"}
    rounds = watched(conditions, root, *[{}] * 4, *[slower] * 5)
    assert conditions.invalid_reasons(rounds) == ["the GPU's clock fell by 50 % during the run"]
    (gpu,) = conditions.summary(rounds, rounds).gpus
    assert gpu.name == "Jetson 17000000.gpu"


class HotGpus:
    """A GPU that gets too hot at its fourth reading."""

    def __init__(self):
        self.read = 0

    def readings(self):
        self.read += 1
        held = ("hardware thermal slowdown",) if self.read == 4 else ()
        return [GpuReading("NVIDIA A2", 1000.0 + self.read, 60.0 + self.read, 50.0 + self.read, held, ("power cap",))]


def test_a_gpu_that_slows_down_disturbs_its_round_and_is_summed_up(tmp_path):
    conditions = Conditions([], root=tmp_path, gpus=HotGpus())
    rounds = watched(conditions, tmp_path, {}, {}, {}, {})
    assert [each.reasons for each in rounds] == [(), (), ("the GPU: hardware thermal slowdown",), ()]
    (gpu,) = conditions.summary(rounds, rounds).gpus
    assert gpu.name == "NVIDIA A2"
    assert gpu.clock_mhz[0] == 1001
    assert gpu.temperature_c == (61, 65)
    assert gpu.throttle_reasons == ("power cap", "hardware thermal slowdown")


def test_what_happens_within_a_block_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("edgevit.evaluation.conditions._LOOK_S", 0.005)
    root = write(tmp_path, JETSON_ORIN_NANO | stat(100))
    conditions = Conditions([], root=root)
    held = root / "sys/class/thermal/cooling_device1/cur_state"
    with conditions.watching():
        conditions.begin()
        held.write_text("2\n")
        while not any(look.throttling.active for look in conditions._looks):
            time.sleep(0.001)
        held.write_text("0\n")
        (found,) = conditions.end().reasons
    assert found == "the kernel lowered the processor's clock because of heat"


def test_a_system_that_tells_nothing_is_not_judged(tmp_path):
    conditions = Conditions([1], root=tmp_path)
    rounds = watched(conditions, tmp_path, {}, {})
    assert conditions.invalid_reasons(rounds) == []
    found = conditions.summary(rounds, rounds)
    assert (found.clock_mhz, found.temperature_c, found.throttled, found.other_load) == (None, None, None, None)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")
def test_this_process_counts_its_own_work_as_its_own():
    conditions = Conditions([])
    start, before = time.process_time(), conditions.now()
    while time.process_time() - start < 0.2:
        pass
    after = conditions.now()
    assert after.own_s - before.own_s == pytest.approx(0.2, abs=0.1)
    assert after.busy_s - before.busy_s >= 0.1


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")
def test_a_worker_s_work_counts_as_our_own_even_after_its_end():
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        conditions = Conditions([worker.pid])
        before = conditions.now().own_s
        worker.stdout.readline()
        running = conditions.now().own_s
        worker.communicate("\n")
        ended = conditions.now().own_s
    assert running - before >= 0.3
    assert ended - before >= 0.3
    assert ended == pytest.approx(running, abs=0.2)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")
def test_hogs_are_found_and_said():
    hog = "print(flush=True)\nwhile True: pass"
    hogs = [subprocess.Popen([sys.executable, "-c", hog], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for each in hogs:
            each.stdout.readline()
        conditions = Conditions([])
        conditions.begin()
        time.sleep(max(1.0, 0.1 * len(CPUS)))
        found = conditions.end()
    finally:
        for each in hogs:
            each.kill()
            each.communicate()
    if 2 / len(CPUS) > 0.2:  # of many cores two are too few to matter
        assert found.reasons[0].startswith("other processes took")
    assert found.shares.others_s > 0.5
