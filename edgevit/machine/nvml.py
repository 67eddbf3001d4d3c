"""NVIDIA GPUs through NVML, the driver's own library, by NVIDIA's package nvidia-ml-py where that is installed.

Names are those of the NVML API Reference. A Jetson's driver has NVML in part or not at all: what it does not tell is
None. **Written against the API and tested with a stand-in: it has not been run on a GPU.**
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

_MOST = 16
#: Of nvmlDeviceGetCurrentClocksEventReasons; an idle clock or one that the owner has set is no throttling.
_HOLDING = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
#: Usual under full load: it is told, and makes no measurement invalid.
_AT_LIMIT = {0x04: "power cap"}


class GpuReading(NamedTuple):
    """One GPU at one moment; ``holding`` is what makes a measurement invalid, ``limits`` what is usual under load."""

    name: str
    clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    holding: tuple[str, ...]
    limits: tuple[str, ...]


class Nvml:
    """The GPUs of this machine; none where there is no driver, or the package is not installed."""

    def __init__(self) -> None:
        self._library: Any = None
        self._handles: list[Any] = []
        try:
            library: Any = importlib.import_module("pynvml")
        except ImportError:
            return
        try:
            library.nvmlInit()
            count = min(_MOST, int(library.nvmlDeviceGetCount()))
            self._handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except library.NVMLError:
            self._handles = []
        self._library = library

    def __len__(self) -> int:
        """Return how many GPUs there are."""
        return len(self._handles)

    def readings(self) -> list[GpuReading]:
        """Return what each GPU does now."""
        return [self._reading(handle) for handle in self._handles]

    def energy_j(self, index: int) -> float | None:
        """Return the joules that a GPU has taken since the driver was loaded; None where it does not count them."""
        millijoules = self._asked(self._handles[index], "nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else float(millijoules) / 1000

    def power_w(self, index: int) -> float | None:
        """Return the watts that a GPU takes now; None where it does not tell."""
        milliwatts = self._asked(self._handles[index], "nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else float(milliwatts) / 1000

    def _reading(self, handle: Any) -> GpuReading:  # noqa: ANN401
        library = self._library
        clock = self._asked(handle, "nvmlDeviceGetClockInfo", getattr(library, "NVML_CLOCK_SM", 1))
        heat = self._asked(handle, "nvmlDeviceGetTemperature", getattr(library, "NVML_TEMPERATURE_GPU", 0))
        power = self._asked(handle, "nvmlDeviceGetPowerUsage")
        # The name until driver 535; the newer one is an alias in its library, but not in older packages.
        reasons = self._asked(handle, "nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:
            reasons = self._asked(handle, "nvmlDeviceGetCurrentClocksThrottleReasons")
        name = self._asked(handle, "nvmlDeviceGetName") or "NVIDIA GPU"
        name = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        return GpuReading(
            name="".join(letter for letter in name if letter.isprintable())[:128],
            clock_mhz=None if clock is None else float(clock),
            temperature_c=None if heat is None else float(heat),
            power_w=None if power is None else float(power) / 1000,
            holding=_named(reasons, _HOLDING),
            limits=_named(reasons, _AT_LIMIT),
        )

    def _asked(self, handle: Any, function: str, *arguments: Any) -> Any:  # noqa: ANN401
        """Return what NVML says; None where this driver, or this package, cannot."""
        asked: Callable[..., Any] | None = getattr(self._library, function, None)
        if asked is None:
            return None
        try:
            return asked(handle, *arguments)
        except self._library.NVMLError:
            return None


def _named(bits: int | None, names: dict[int, str]) -> tuple[str, ...]:
    return tuple(name for bit, name in names.items() if (bits or 0) & bit)
