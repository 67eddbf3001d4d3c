"""What holds clocks down, read from boards' files (tests/boards.py)."""

import os

import pytest
from boards import BOARDS, CPUS, INTEL_LAPTOP, JETSON_ORIN_NANO, RASPBERRY_PI_5, write

from edgevit.machine.throttling import happened, throttling

PI = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_that_is_left_alone_is_not_throttled(tmp_path, board):
    root = write(tmp_path, BOARDS[board])
    assert happened(throttling(CPUS, root), throttling(CPUS, root)) == []


def events(root, before, after):
    first = throttling(CPUS, write(root, before))
    return happened(first, throttling(CPUS, write(root, after)))


def test_counters_that_rise_are_events(tmp_path):
    core = f"sys/devices/system/cpu/cpu{CPUS[0]}/thermal_throttle/core_throttle_count"
    assert events(tmp_path, INTEL_LAPTOP, {core: "6"}) == ["the processor throttled itself because of heat"]


@pytest.mark.parametrize(
    ("counter", "what"),
    [("oc1", "under-voltage"), ("oc2", "average over-current"), ("oc3", "instantaneous over-current")],
)
def test_an_orin_counts_its_over_currents(tmp_path, counter, what):
    changed = {f"sys/class/hwmon/hwmon3/{counter}_event_cnt": "5"}
    assert events(tmp_path, JETSON_ORIN_NANO, changed) == [f"the board throttled because of {what}"]


def test_clocks_that_the_kernel_holds_down_are_throttled_and_a_fan_is_not(tmp_path):
    place = "sys/class/thermal/cooling_device"
    assert events(tmp_path, JETSON_ORIN_NANO, {f"{place}0/cur_state": "4"}) == []
    assert events(tmp_path, {}, {f"{place}1/cur_state": "2"}) == [
        "the kernel lowered the processor's clock because of heat"
    ]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("0", "50005", ["the firmware throttles the processor", "the supply's voltage is too low"]),
        ("50000", "50000", []),  # since the start of the machine, but not now
        ("50000", "d0000", ["the soft limit of temperature holds the clock down"]),
        ("0", "2", ["the firmware caps the clock"]),
        ("2", "2", ["the firmware caps the clock"]),  # all the time
        ("0", "nonsense", []),
        ("0", "throttled=0x4", ["the firmware throttles the processor"]),
    ],
)
def test_the_bits_of_a_raspberry_pi(tmp_path, before, after, found):
    assert events(tmp_path, RASPBERRY_PI_5 | {PI: before}, {PI: after}) == found


def test_the_alarm_of_a_raspberry_pis_supply(tmp_path):
    alarm = {"sys/class/hwmon/hwmon3/in0_lcrit_alarm": "1"}
    assert events(tmp_path, RASPBERRY_PI_5, alarm) == ["the supply's voltage is too low"]


@pytest.mark.parametrize("place", ["", "user.slice/app.scope/"])
def test_the_limit_of_a_container_holds_it_back(tmp_path, place):
    files = {
        "proc/self/cgroup": f"0::/{place}".rstrip("/"),
        f"sys/fs/cgroup/{place}cpu.stat": "usage_usec 5\nnr_periods 9\nnr_throttled 3\nthrottled_usec 7",
    }
    after = {f"sys/fs/cgroup/{place}cpu.stat": "usage_usec 9\nnr_periods 19\nnr_throttled 4\nthrottled_usec 9"}
    assert events(tmp_path, files, after) == ["the container's limit of processor time held it back"]


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo throttled=0x50005", {"the firmware throttles the processor", "the supply's voltage is too low"}),
        ("echo throttled=0x0", set()),
        ("echo 'VCHI initialization failed'; exit 255", set()),
        ("exec sleep 60", set()),
    ],
)
def test_the_firmwares_own_command_is_asked_where_the_kernel_does_not_tell(tmp_path, monkeypatch, script, found):
    command = tmp_path / "vcgencmd"
    command.write_text(f"#!/bin/sh\n[ $1 = get_throttled ] || exit 1\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("edgevit.machine.throttling._VCGENCMD_S", 0.3)
    monkeypatch.setattr("edgevit.system.board", lambda root: "Raspberry Pi 4 Model B Rev 1.4")
    assert throttling([]).active - {"the kernel lowered the processor's clock because of heat"} == found
