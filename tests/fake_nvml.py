"""A stand-in of nvidia-ml-py: names and units are those of NVIDIA's NVML API Reference."""

from types import ModuleType


class NvmlError(Exception):
    """What nvidia-ml-py raises."""


def library(**functions):
    """Return a module as nvidia-ml-py has it, with two GPUs that can do what ``functions`` say."""
    found = ModuleType("pynvml")
    found.NVMLError = NvmlError
    found.nvmlInit = lambda: None
    found.nvmlDeviceGetCount = lambda: 2
    found.nvmlDeviceGetHandleByIndex = lambda index: index
    for name, function in functions.items():
        setattr(found, name, function)
    return found


def cannot(*_):
    raise NvmlError("Not Supported")


WHOLE = {
    "nvmlDeviceGetName": lambda gpu: ["NVIDIA A2", b"NVIDIA T4"][gpu],
    "nvmlDeviceGetClockInfo": lambda gpu, kind: {1: 1770}[kind],
    "nvmlDeviceGetTemperature": lambda gpu, sensor: {0: 61}[sensor],
    "nvmlDeviceGetPowerUsage": lambda gpu: 59_500,
    "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: 1_234_500,
    "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: [0x4, 0x1 | 0x20 | 0x40][gpu],
}
