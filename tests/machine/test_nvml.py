"""NVML, by a stand-in of nvidia-ml-py (tests/fake_nvml.py)."""

import sys

import pytest
from fake_nvml import WHOLE, cannot, library

from edgevit.machine.nvml import GpuReading, Nvml


def test_a_gpu_tells_its_clock_heat_power_and_what_holds_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", library(**WHOLE))
    gpus = Nvml()
    assert len(gpus) == 2
    assert gpus.readings() == [
        GpuReading("NVIDIA A2", 1770, 61, 59.5, (), ("power cap",)),
        GpuReading("NVIDIA T4", 1770, 61, 59.5, ("software thermal slowdown", "hardware thermal slowdown"), ()),
    ]
    assert (gpus.energy_j(0), gpus.power_w(1)) == (1234.5, 59.5)


def test_an_older_package_knows_reasons_by_another_name(monkeypatch):
    old = {name: function for name, function in WHOLE.items() if not name.endswith("EventReasons")}
    old["nvmlDeviceGetCurrentClocksThrottleReasons"] = lambda gpu: 0x8
    monkeypatch.setitem(sys.modules, "pynvml", library(**old))
    assert Nvml().readings()[0].holding == ("hardware slowdown",)


def test_what_a_driver_does_not_tell_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", library(**dict.fromkeys(WHOLE, cannot)))
    gpus = Nvml()
    assert gpus.readings()[0] == GpuReading("NVIDIA GPU", None, None, None, (), ())
    assert (gpus.energy_j(0), gpus.power_w(0)) == (None, None)


@pytest.mark.parametrize("module", [None, library(nvmlInit=cannot)])
def test_without_package_or_driver_there_is_no_gpu(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert len(Nvml()) == 0
    assert Nvml().readings() == []
