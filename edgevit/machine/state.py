"""The state of the machine at one moment: clocks, temperature, governor, power mode, battery.

Files and units are those of the kernel's documentation: Documentation/admin-guide/pm/cpufreq.rst,
Documentation/driver-api/thermal/sysfs-api.rst, Documentation/hwmon/sysfs-interface.rst,
Documentation/ABI/testing/sysfs-class-power and sysfs-platform_profile. Of a Jetson, ``nvpmodel`` keeps its mode in
/var/lib/nvpmodel/status and the names of modes in /etc/nvpmodel.conf (NVIDIA's Jetson Linux Developer Guide, "Power
Mode Controls"). What a system does not tell is None or empty. ``root`` is where /proc, /sys, /etc and /var lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from edgevit import system
from edgevit.system import read_text

#: Sensors of processors and of systems on a chip; others, such as those of disks and radios, say nothing of clocks.
_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "scpi_sensors")
_ZONES = re.compile(r"cpu|gpu|soc|pkg|package|core|tj|cv\d|dts|big|little|bcm", re.IGNORECASE)
#: What is no temperature of a machine that runs: a sensor that is off or broken.
_COLDEST, _HOTTEST = -60.0, 200.0
_LONGEST = 128


class State(NamedTuple):
    """What can be seen at once: each core's clock, the hottest sensor in degrees Celsius, and settings."""

    clocks_mhz: tuple[float, ...]
    temperature_c: float | None
    governor: str | None
    power_mode: str | None
    on_battery: bool | None


def state(cpus: Iterable[int], root: Path = Path("/")) -> State:
    """Return the state of the machine now, of the cores ``cpus``."""
    cores = sorted(cpus)
    return State(
        clocks_mhz=tuple(clock / 1000 for clock in system.clocks_khz(cores, root)),
        temperature_c=max(temperatures_c(root), default=None),
        governor=governor(cores, root),
        power_mode=power_mode(cores, root),
        on_battery=on_battery(root),
    )


def temperatures_c(root: Path = Path("/")) -> list[float]:
    """Return what the sensors of processor and chip show, in degrees Celsius."""
    zones = (root / "sys/class/thermal").glob("thermal_zone*")
    files = [zone / "temp" for zone in zones if _ZONES.search(read_text(zone / "type"))]
    for chip in (root / "sys/class/hwmon").glob("hwmon*"):
        if read_text(chip / "name").strip() in _CHIPS:
            files += chip.glob("temp*_input")
    found = (_whole(read_text(file)) for file in files)
    return [value / 1000 for value in found if value is not None and _COLDEST < value / 1000 < _HOTTEST]


def governor(cpus: Iterable[int], root: Path = Path("/")) -> str | None:
    """Return who sets the clocks of ``cpus``: the governor, or several where cores differ."""
    folder = root / "sys/devices/system/cpu"
    found = {read_text(folder / f"cpu{number}/cpufreq/scaling_governor").strip() for number in cpus}
    return _printable(", ".join(sorted(found - {""})))


def power_mode(cpus: Iterable[int], root: Path = Path("/")) -> str | None:
    """Return the mode that the owner has chosen: nvpmodel's on a Jetson, else the firmware's platform profile.

    On a Jetson it is said, too, where clocks are pinned, as ``jetson_clocks`` does: the lowest that a core may have is
    its highest.
    """
    match = re.search(r"pmode:0*(\d+)", read_text(root / "var/lib/nvpmodel/status"))
    if match is None:
        return _printable(read_text(root / "sys/firmware/acpi/platform_profile").strip())
    number = match[1]
    named = re.search(rf"<\s*POWER_MODEL\s+ID={number}\s+NAME=(\S+)", read_text(root / "etc/nvpmodel.conf"))
    mode = f"nvpmodel {number}{f' ({named[1]})' if named else ''}"
    return _printable(f"{mode}, clocks pinned" if _pinned(cpus, root) else mode)


def on_battery(root: Path = Path("/")) -> bool | None:
    """Return whether the machine runs on a battery; None where it has no supply that tells."""
    found: list[bool] = []
    for supply in (root / "sys/class/power_supply").glob("*"):
        if read_text(supply / "scope").strip() == "Device":  # a mouse's, or a phone's beside it
            continue
        kind = read_text(supply / "type").strip()
        online = read_text(supply / "online").strip()
        if kind in ("Mains", "USB", "Wireless") and online == "1":
            return False
        if kind == "Mains" and online == "0":
            found.append(True)
        if kind == "Battery" and (status := read_text(supply / "status").strip()):
            found.append(status == "Discharging")
    return any(found) if found else None


def _pinned(cpus: Iterable[int], root: Path) -> bool:
    folder = root / "sys/devices/system/cpu"
    limits = [
        tuple(_whole(read_text(folder / f"cpu{number}/cpufreq/scaling_{end}_freq")) for end in ("min", "max"))
        for number in cpus
    ]
    known = [pair for pair in limits if None not in pair]
    return bool(known) and all(low == high for low, high in known)


def _whole(text: str) -> int | None:
    text = text.strip()
    return int(text) if re.fullmatch(r"-?\d{1,18}", text, re.ASCII) else None


def _printable(text: str) -> str | None:
    """Return a short text without what is no letter, digit or sign; None if nothing is left."""
    return "".join(letter for letter in text if letter.isprintable())[:_LONGEST] or None
