"""The state of boards, read from their files (tests/boards.py)."""

import pytest
from boards import BOARDS, CPUS, INTEL_LAPTOP, JETSON_ORIN_NANO, RASPBERRY_PI_5, cores, write

from edgevit.machine.state import State, state


@pytest.mark.parametrize(
    ("board", "expected"),
    [
        ("jetson", State((1728,) * len(CPUS), 49.062, "schedutil", "nvpmodel 2 (MAXN_SUPER)", None)),
        ("pi", State((2400,) * len(CPUS), 61.95, "ondemand", None, None)),
        ("laptop", State((3400,) * len(CPUS), 72.0, "powersave", "balanced", True)),
        ("server", State((2450,) * len(CPUS), 57.875, "performance", None, None)),
    ],
)
def test_each_board_tells_what_its_files_say(tmp_path, board, expected):
    assert state(CPUS, write(tmp_path, BOARDS[board])) == expected


def test_a_system_that_tells_nothing_is_unknown(tmp_path):
    assert state(CPUS, tmp_path) == State((), None, None, None, None)


def test_jetson_clocks_shows_in_a_lowest_clock_that_is_the_highest(tmp_path):
    pinned = JETSON_ORIN_NANO | cores(1_728_000, "schedutil", 1_728_000, 1_728_000)
    assert state(CPUS, write(tmp_path, pinned)).power_mode == "nvpmodel 2 (MAXN_SUPER), clocks pinned"


def test_a_mode_without_a_name_has_its_number(tmp_path):
    files = {"var/lib/nvpmodel/status": "pmode:0011 fmode:quiet", "etc/nvpmodel.conf": "< POWER_MODEL ID=1 NAME=X >"}
    assert state(CPUS, write(tmp_path, files)).power_mode == "nvpmodel 11"


@pytest.mark.parametrize(
    ("changed", "on_battery"),
    [
        ({"AC/online": "1", "BAT0/status": "Charging"}, False),
        ({"AC/online": "1", "BAT0/status": "Discharging"}, False),
        ({"AC/online": "0", "BAT0/status": "Discharging"}, True),
        ({"AC/online": "0", "BAT0/status": "Unknown"}, True),
    ],
)
def test_a_battery_counts_where_nothing_else_feeds_the_machine(tmp_path, changed, on_battery):
    files = {f"sys/class/power_supply/{name}": text for name, text in changed.items()}
    assert state(CPUS, write(tmp_path, INTEL_LAPTOP | files)).on_battery is on_battery


def test_the_battery_of_a_mouse_feeds_no_machine(tmp_path):
    mouse = {name: text for name, text in INTEL_LAPTOP.items() if "hidpp" in name}
    assert state(CPUS, write(tmp_path, mouse)).on_battery is None


@pytest.mark.parametrize("text", ["", "nonsense", "-", "1e4", "999999999999999999999", "-274000"])
def test_a_sensor_that_is_off_or_broken_has_no_temperature(tmp_path, text):
    files = RASPBERRY_PI_5 | {"sys/class/thermal/thermal_zone0/temp": text}
    assert state(CPUS, write(tmp_path, files)).temperature_c == 61.4


def test_what_files_say_is_printable_and_short(tmp_path):
    files = {"sys/firmware/acpi/platform_profile": "bal\x1b[31manced" + "x" * 500}
    mode = state(CPUS, write(tmp_path, files)).power_mode
    assert mode.startswith("bal[31manced")
    assert len(mode) == 128
