"""What holds the machine's clocks down: heat, too little power, or a limit of its container.

Counters rise when something happened, flags say that something holds now. Files are those of the kernel's
documentation: ``thermal_throttle`` in Documentation/ABI/testing/sysfs-devices-system-cpu, cooling devices in
Documentation/driver-api/thermal/sysfs-api.rst, ``cpu.stat`` in Documentation/admin-guide/cgroup-v2.rst. The bits of a
Raspberry Pi are those of its documentation of ``vcgencmd get_throttled``, which its kernel has in sysfs, too; an Orin's
``oc*_event_cnt`` are those of NVIDIA's Jetson Linux Developer Guide, "Over-current throttling".
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from edgevit import system
from edgevit.system import read_number, read_text

_PI_NOW = {
    0: "the supply's voltage is too low",
    1: "the firmware caps the clock",
    2: "the firmware throttles the processor",
    3: "the soft limit of temperature holds the clock down",
}
#: From this bit on, the same once more: whether it has happened since.
_PI_HAPPENED = 16
_ORIN_EVENTS = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
_VCGENCMD_S = 2.0


class Throttling(NamedTuple):
    """What was seen at one moment: how often something has happened, by its name, and what holds now."""

    counts: Mapping[str, int]
    active: frozenset[str]


def throttling(cpus: Iterable[int], root: Path = Path("/")) -> Throttling:
    """Return what holds the clocks of ``cpus`` down, or has done so."""
    counts = {
        "the processor throttled itself because of heat": system.throttle_events(cpus, root),
        "the container's limit of processor time held it back": _cgroup_throttled(root),
    }
    active = set()
    if system.cooling_steps(root):
        active.add("the kernel lowered the processor's clock because of heat")
    for chip in (root / "sys/class/hwmon").glob("hwmon*"):
        for name, what in _ORIN_EVENTS.items():
            if (events := read_number(chip / f"{name}_event_cnt")) > 0:
                counts[f"the board throttled because of {what}"] = events
        if read_text(chip / "name").strip() == "rpi_volt" and read_number(chip / "in0_lcrit_alarm"):
            active.add(_PI_NOW[0])
    bits = _pi_bits(root)
    for bit, what in _PI_NOW.items():
        if bits >> bit & 1:
            active.add(what)
        counts[what] = bits >> (_PI_HAPPENED + bit) & 1
    return Throttling(counts, frozenset(active))


def happened(before: Throttling, after: Throttling) -> list[str]:
    """Say what held the clocks down between two moments, or holds them down at the second."""
    risen = {what for what, count in after.counts.items() if count > before.counts.get(what, 0)}
    return sorted(risen | after.active)


def _cgroup_throttled(root: Path) -> int:
    """Return how often this process's control group ran out of its share (cpu.max) since it was made."""
    match = re.search(r"^0::(/.*)$", read_text(root / "proc/self/cgroup"), re.MULTILINE)
    place = root / "sys/fs/cgroup" / (match[1].lstrip("/") if match else "")
    for folder in (place, root / "sys/fs/cgroup"):  # inside of a container its own group is the root
        if found := re.search(r"^nr_throttled (\d{1,18})$", read_text(folder / "cpu.stat"), re.MULTILINE | re.ASCII):
            return int(found[1])
    return 0


def _pi_bits(root: Path) -> int:
    """Return the bits of ``get_throttled``, by sysfs or by the firmware's own command; 0 on other boards."""
    for file in (root / "sys/devices/platform").glob("soc*/soc*firmware/get_throttled"):
        return _hexadecimal(read_text(file))
    if root != Path("/") or "Raspberry Pi" not in system.board(root) or not (command := shutil.which("vcgencmd")):
        return 0
    try:
        asked = subprocess.run(
            [command, "get_throttled"], capture_output=True, text=True, timeout=_VCGENCMD_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return _hexadecimal(asked.stdout)


def _hexadecimal(text: str) -> int:
    """Return the number in ``throttled=0x50000``, or in ``50000``, as sysfs has it."""
    match = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", text.strip())
    return int(match[1], 16) if match else 0
