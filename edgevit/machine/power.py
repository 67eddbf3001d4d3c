"""Sensors of power and energy: INA3221 rails, RAPL, hwmon, NVML, and a battery; which one there is, and what it covers.

Files and units are those of the kernel's documentation: Documentation/power/powercap/powercap.rst (microjoules, which
start again at ``max_energy_range_uj``), Documentation/hwmon/ina3221.rst (millivolts, milliamperes) and
Documentation/hwmon/sysfs-interface.rst (microwatts, microjoules), Documentation/ABI/testing/sysfs-class-power
(microwatts, or microvolts times microamperes). ``VDD_IN`` is what a Jetson Orin Nano or NX takes as a whole,
``VDD_GPU_SOC`` and its neighbours add up to an AGX Orin's (NVIDIA's Jetson Linux Developer Guide, "Power monitors").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgevit.errors import InputError
from edgevit.machine.nvml import Nvml
from edgevit.shell import quoted
from edgevit.system import read_text

AUTO, NONE = "auto", "none"
#: What ``--energy-from`` takes beside the path of a sensor's file, or the name of a hwmon chip.
NAMES = (AUTO, NONE, "ina3221", "rapl", "nvml", "battery")
#: Seconds between samples: of a counter, which only has to be read before it starts again and near a block's ends, and
#: of a power sensor, which may sit behind a slow bus.
_COUNTER_S, _POWER_S = 0.02, 0.1
_LONGEST, _MOST_NAMED = 128, 8


@dataclass(frozen=True, slots=True)
class Channel:
    """One reading: of joules so far, which start again at ``wraps_at``, or of watts now; None if it cannot be read."""

    read: Callable[[], float | None]
    counts: bool
    wraps_at: float | None = None


@dataclass(frozen=True, slots=True)
class PowerSource:
    """Where energy is read from, and what it covers; channels are added up."""

    name: str
    covers: str
    channels: tuple[Channel, ...]

    @property
    def lags(self) -> bool:
        """Whether it gives power, as a sensor averages it over some time, and not energy, which is counted."""
        return not all(channel.counts for channel in self.channels)

    @property
    def interval_s(self) -> float:
        """Seconds between samples."""
        return _POWER_S if self.lags else _COUNTER_S


class NoSource(Exception):
    """There is nothing to read; the message says why, in a line."""


def source(wanted: str = AUTO, *, gpu: bool = False, root: Path = Path("/")) -> PowerSource:
    """Return where energy is to be read from.

    Args:
        wanted: one of ``NAMES``, the name of a hwmon chip, or the path of a sensor's file.
        gpu: whether something that is measured runs on an NVIDIA GPU: then ``auto`` adds it to what RAPL covers.
        root: where /sys lies.

    Raises:
        NoSource: if ``auto`` finds none, or ``none`` was asked for.
        InputError: if one was asked for by name, and it is not here or cannot be read.

    """
    if wanted == NONE:
        raise NoSource("it was not asked for")
    if wanted == AUTO:
        return _automatic(gpu=gpu, root=root)
    try:
        if "/" in wanted:
            return _file(Path(wanted))
        makers = {"ina3221": _ina3221, "rapl": _rapl, "battery": _battery}
        if wanted == "nvml":
            return _nvml()
        return makers[wanted](root) if wanted in makers else _chip(wanted, root)
    except NoSource as reason:
        known = ", ".join([*NAMES, *sorted(_chips_with_power(root))])
        raise InputError(
            f"there is no energy from '{wanted[:_LONGEST]}': {reason}",
            remedy=f"use --energy-from with one of: {known}; or with the path of a sensor's file",
        ) from reason


def _automatic(*, gpu: bool, root: Path) -> PowerSource:
    """Return the source that covers most: a board's own rails, else the processor's counters and the GPU's."""
    try:
        return _ina3221(root)
    except NoSource:
        pass  # only Jetsons have it
    if not gpu:
        return _rapl(root)
    parts = [_nvml()]  # what it takes must be among them: the processor's alone would be taken for the whole
    with suppress(NoSource):  # the name says that it is the GPU's alone
        parts.insert(0, _rapl(root))
    return PowerSource(
        name=" + ".join(part.name for part in parts),
        covers=" + ".join(part.covers for part in parts),
        channels=tuple(channel for part in parts for channel in part.channels),
    )


def _rapl(root: Path) -> PowerSource:
    """Return the counters of all processor packages, and of the memory beside them, where it has its own."""
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
    named = [(zone, read_text(zone / "name").strip()) for zone in zones]
    chosen = [(zone, name) for zone, name in named if name.startswith("package-") or name == "dram"]
    if not chosen:
        raise NoSource(f"the kernel has no RAPL counters of energy ({root / 'sys/class/powercap'}/intel-rapl:*)")
    channels = []
    for zone, _ in chosen:
        counter, most = zone / "energy_uj", _number(zone / "max_energy_range_uj")
        if _number(counter) is None:
            raise NoSource(
                f"{counter} cannot be read, as since Linux 5.10 only root may: "
                f"sudo chmod a+r {quoted(counter.parent.parent)}/intel-rapl:*/energy_uj, until the next start"
            )
        channels.append(Channel(_scaled(counter, 1e-6), counts=True, wraps_at=most / 1e6 if most else None))
    memory = " and its memory" if any(name == "dram" for _, name in chosen) else ""
    return PowerSource(
        f"RAPL {', '.join(name for _, name in chosen)}"[:_LONGEST], f"the processor{memory}", tuple(channels)
    )


def _ina3221(root: Path) -> PowerSource:
    """Return the rail of a Jetson's INA3221 that the whole module is fed by; else all rails that have a name."""
    rails: dict[str, Channel] = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if read_text(chip / "name").strip() != "ina3221":
            continue
        for number in (1, 2, 3):
            label = read_text(chip / f"in{number}_label").strip()
            volts, amperes = chip / f"in{number}_input", chip / f"curr{number}_input"
            if label and label != "NC" and _number(amperes) is not None and _number(volts) is not None:
                rails[label] = Channel(_product(volts, amperes, 1e-6), counts=False)
    whole = next((label for label in rails if label.endswith("VDD_IN")), None)
    if whole is not None:
        return PowerSource(f"INA3221 {whole}"[:_LONGEST], "the whole module", (rails[whole],))
    if not rails:
        raise NoSource(
            f"there is no INA3221 with a rail that can be read ({root / 'sys/class/hwmon'}/hwmon*/curr*_input)"
        )
    return PowerSource(
        f"INA3221 {', '.join(rails)}"[:_LONGEST], f"{len(rails)} rails of the module", tuple(rails.values())
    )


def _nvml() -> PowerSource:
    gpus = Nvml()
    if not len(gpus):
        raise NoSource("NVML finds no NVIDIA GPU: pip install nvidia-ml-py, and see what nvidia-smi says")
    channels = []
    for index in range(len(gpus)):
        if gpus.energy_j(index) is not None:
            channels.append(Channel(lambda index=index: gpus.energy_j(index), counts=True))  # type: ignore[misc]
        elif gpus.power_w(index) is not None:
            channels.append(Channel(lambda index=index: gpus.power_w(index), counts=False))  # type: ignore[misc]
        else:
            raise NoSource("the NVIDIA driver tells neither the GPU's energy nor its power")
    return PowerSource("NVML", f"{len(gpus)} NVIDIA GPU{'s' * (len(gpus) > 1)}", tuple(channels))


def _battery(root: Path) -> PowerSource:
    """Return what flows out of the battery; it tells nothing while it is charged."""
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        scope = read_text(supply / "scope").strip()
        if read_text(supply / "type").strip() != "Battery" or scope == "Device":
            continue
        if read_text(supply / "status").strip() != "Discharging":
            raise NoSource(f"{supply.name} is not discharging: unplug the charger")
        if _number(supply / "power_now") is not None:
            channel = Channel(_scaled(supply / "power_now", 1e-6, magnitude=True), counts=False)
        elif _number(supply / "current_now") is not None and _number(supply / "voltage_now") is not None:
            read = _product(supply / "voltage_now", supply / "current_now", 1e-12, magnitude=True)
            channel = Channel(read, counts=False)
        else:
            raise NoSource(f"{supply.name} tells neither its power nor its current")
        return PowerSource(f"battery {supply.name}"[:_LONGEST], "the whole machine", (channel,))
    raise NoSource("there is no battery")


def _chips_with_power(root: Path) -> Iterator[str]:
    for chip in (root / "sys/class/hwmon").glob("hwmon*"):
        if next(_sensors(chip), None) is not None:
            yield read_text(chip / "name").strip()


def _sensors(chip: Path) -> Iterator[Path]:
    """Yield the files of a hwmon chip that give energy, else power."""
    for kind in ("energy*_input", "power*_input", "power*_average"):
        if found := sorted(chip.glob(kind)):
            yield from found
            return


def _chip(name: str, root: Path) -> PowerSource:
    chips = [chip for chip in (root / "sys/class/hwmon").glob("hwmon*") if read_text(chip / "name").strip() == name]
    if not chips:
        raise NoSource("no hwmon chip is called so")
    files = [file for chip in sorted(chips) for file in _sensors(chip)]
    if not files:
        raise NoSource("this hwmon chip has neither power nor energy")
    if len(files) > 1:  # what goes in and what goes out of a supply, or parts and their sum, must not be added up
        raise NoSource(f"it has several sensors, name one: {', '.join(map(str, files[:_MOST_NAMED]))}")
    return PowerSource(name[:_LONGEST], "what it is wired to", _file(files[0]).channels)


def _file(path: Path) -> PowerSource:
    """Return the sensor whose file is ``path``; its name says what it gives, as the kernel names such files."""
    if not path.is_file() or _number(path) is None:
        raise NoSource("no number can be read there")
    if path.name == "energy_uj" or re.fullmatch(r"energy\d+_input", path.name):
        most = _number(path.with_name("max_energy_range_uj"))
        channel = Channel(_scaled(path, 1e-6), counts=True, wraps_at=most / 1e6 if most else None)
    elif re.fullmatch(r"power\d+_(input|average)|power_now", path.name):
        channel = Channel(_scaled(path, 1e-6), counts=False)
    elif match := re.fullmatch(r"curr(\d+)_input", path.name):
        volts = path.with_name(f"in{match[1]}_input")
        if _number(volts) is None:
            raise NoSource(f"it is a current, and {volts} gives no voltage to it")
        channel = Channel(_product(volts, path, 1e-6), counts=False)
    else:
        raise NoSource("its name is not that of a sensor of power or energy, such as power1_input or energy_uj")
    return PowerSource(str(path)[:1024], "what this sensor is wired to", (channel,))


def _number(path: Path) -> int | None:
    text = read_text(path).strip()
    return int(text) if re.fullmatch(r"-?\d{1,20}", text, re.ASCII) else None


def _scaled(path: Path, unit: float, *, magnitude: bool = False) -> Callable[[], float | None]:
    def read() -> float | None:
        value = _number(path)
        return None if value is None else (abs(value) if magnitude else value) * unit

    return read


def _product(one: Path, other: Path, unit: float, *, magnitude: bool = False) -> Callable[[], float | None]:
    def read() -> float | None:
        values: Sequence[int | None] = (_number(one), _number(other))
        if values[0] is None or values[1] is None:
            return None
        product = values[0] * values[1] * unit
        return abs(product) if magnitude else product

    return read
