"""What the operating system tells of this machine and its processes: with ``machine/``, what reads /proc and /sys.

Where a system has neither, as macOS, what it does not tell is None, empty or 0, and nothing is an error. ``root`` is
where /proc and /sys lie.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/")
#: Of a number in a file: the kernel's counters have 64 bits.
_MOST_DIGITS = 20


class Memory(NamedTuple):
    """The machine's memory in MiB, and how much of it programs can have; None where that is not known."""

    total_mb: int | None
    available_mb: int | None


def usable_cpus() -> frozenset[int]:
    """Return the numbers of the cores that this process may run on; none where the system does not tell."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(usable_cpus()) or os.cpu_count() or 1


def cpuinfo(root: Path = _ROOT) -> str:
    """Return what Linux says of the processor."""
    return read_text(root / "proc/cpuinfo")


def board(root: Path = _ROOT) -> str:
    """Return the name of the board, such as a Raspberry Pi's; a PC's is not told."""
    return read_text(root / "proc/device-tree/model").strip("\0 \n")


def memory(root: Path = _ROOT) -> Memory:
    """Return how much memory there is."""
    lines = (line.partition(":") for line in read_text(root / "proc/meminfo").splitlines())
    kibibytes = {name: words[0] for name, words in ((name, rest.split()) for name, _, rest in lines) if words}
    total, available = (kibibytes.get(name, "") for name in ("MemTotal", "MemAvailable"))
    return Memory(*(int(each) // 1024 if each.isdecimal() else None for each in (total, available)))


def address_space() -> int | None:
    """Return how many bytes of address space this process has; None where that is not known."""
    pages = read_text(_ROOT / "proc/self/statm").split()[:1]
    return int(pages[0]) * os.sysconf("SC_PAGESIZE") if pages and pages[0].isdecimal() else None


def peak_rss_mb() -> float:
    """Return the most memory that this program ever had resident, in MiB.

    Linux's getrusage also counts what the parent had when it forked, so the process's own high-water mark is read.
    """
    lines = (line.split() for line in read_text(_ROOT / "proc/self/status").splitlines())
    kibibytes = next((words[1] for words in lines if words[:1] == ["VmHWM:"]), None)
    if kibibytes is not None:
        return int(kibibytes) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def core_seconds(cpus: Iterable[int], root: Path = _ROOT) -> tuple[float, float]:
    """Return the seconds that ``cpus`` were busy, and that a hypervisor took from them, since the machine started."""
    names = {f"cpu{number}" for number in cpus}
    busy = stolen = 0
    for line in read_text(root / "proc/stat").splitlines():
        name, *values = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(value) for value in values[:8])
            busy += user + nice + system + irq + softirq
            stolen += steal
    return _seconds(busy), _seconds(stolen)


def process_seconds(pid: int, root: Path = _ROOT) -> float:
    """Return the processor time that a process took so far; 0 if it has ended."""
    # The name in parentheses may hold anything; the fields after it are numbers, user and system time the 12th and
    # 13th.
    fields = read_text(root / f"proc/{pid}/stat").rpartition(")")[2].split()
    return _seconds(int(fields[11]) + int(fields[12])) if fields else 0.0


def clocks_khz(cpus: Iterable[int], root: Path = _ROOT) -> list[int]:
    """Return the clocks of ``cpus`` at this moment, as far as they are told."""
    return _of_cpus(cpus, "cpufreq/scaling_cur_freq", root)


def throttle_events(cpus: Iterable[int], root: Path = _ROOT) -> int:
    """Return how often ``cpus`` throttled themselves because of heat since the machine started."""
    return sum(_of_cpus(cpus, "thermal_throttle/*_throttle_count", root))


def cooling_steps(root: Path = _ROOT) -> int:
    """Return how many steps the kernel holds the processor's clocks down, over all of its cooling devices."""
    steps = 0
    for device in (root / "sys/class/thermal").glob("cooling_device*"):
        kind = read_text(device / "type").strip()
        if kind == "Processor" or "cpufreq" in kind:
            steps += read_number(device / "cur_state")
    return steps


def _of_cpus(cpus: Iterable[int], pattern: str, root: Path) -> list[int]:
    folder = root / "sys/devices/system/cpu"
    return [read_number(path) for number in cpus for path in folder.glob(f"cpu{number}/{pattern}")]


def _seconds(ticks: int) -> float:
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else 0.0


def read_text(path: Path) -> str:
    """Return what a file says; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_number(path: Path) -> int:
    """Return the whole number that a file has; 0 where there is none."""
    text = read_text(path).strip()
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else 0
