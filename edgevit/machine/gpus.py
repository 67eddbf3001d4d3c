"""The GPUs whose clocks and heat count where a variant runs on them: by NVML, or a Jetson's by its sysfs.

A Jetson's GPU is a devfreq device, such as 17000000.gpu or, before JetPack 6, 17000000.ga10b (NVIDIA's Jetson Linux
Developer Guide, "GPU clock"; the kernel's Documentation/ABI/testing/sysfs-class-devfreq, in Hz), its heat a thermal
zone, and what holds it down a cooling device that is named after it.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgevit.machine.nvml import GpuReading, Nvml
from edgevit.system import read_number, read_text

_DEVICE = re.compile(r"\.(gpu|ga10b|gv11b|gp10b|gb10b)$")
_HELD = "the kernel lowered its clock because of heat"


class Gpus:
    """The GPUs of this machine; NVML's where it is, else those of a Jetson below ``root``."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._nvml = Nvml()

    def readings(self) -> list[GpuReading]:
        """Return what each GPU does now."""
        found = self._nvml.readings()
        told = any(each.clock_mhz is not None for each in found)
        return found if told else [self._jetson(device) for device in self._devices()] or found

    def _devices(self) -> list[Path]:
        return sorted(each for each in (self._root / "sys/class/devfreq").glob("*") if _DEVICE.search(each.name))

    def _jetson(self, device: Path) -> GpuReading:
        thermal = self._root / "sys/class/thermal"
        zones = [zone for zone in thermal.glob("thermal_zone*") if "gpu" in read_text(zone / "type").lower()]
        heat = [value / 1000 for zone in zones if (value := read_number(zone / "temp"))]
        held = any(
            device.name in read_text(each / "type") and read_number(each / "cur_state") > 0
            for each in thermal.glob("cooling_device*")
        )
        hertz = read_number(device / "cur_freq")
        return GpuReading(
            name=f"Jetson {device.name}"[:128],
            clock_mhz=hertz / 1e6 if hertz else None,
            temperature_c=max(heat, default=None),
            power_w=None,
            holding=(_HELD,) if held else (),
            limits=(),
        )
