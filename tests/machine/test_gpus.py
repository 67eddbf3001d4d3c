"""GPUs by NVML (tests/fake_nvml.py), and a Jetson's by its files (tests/boards.py)."""

import sys

import pytest
from boards import JETSON_ORIN_NANO, write
from fake_nvml import WHOLE, cannot, library

from edgevit.machine.gpus import Gpus
from edgevit.machine.nvml import GpuReading

JETSON = GpuReading("Jetson 17000000.gpu", 1020.0, 48.843, None, (), ())


@pytest.mark.parametrize("module", [None, library(**dict.fromkeys(WHOLE, cannot))], ids=["none", "tells nothing"])
def test_a_jetson_is_read_where_nvml_says_nothing(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    root = write(tmp_path, JETSON_ORIN_NANO)
    assert Gpus(root).readings() == [JETSON]
    write(root, {"sys/class/thermal/cooling_device2/cur_state": "1"})
    (held,) = Gpus(root).readings()
    assert held.holding == ("the kernel lowered its clock because of heat",)


def test_a_gpu_of_before_jetpack_6_has_another_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    root = write(tmp_path, {"sys/class/devfreq/17000000.ga10b/cur_freq": "624750000"})
    assert Gpus(root).readings() == [GpuReading("Jetson 17000000.ga10b", 624.75, None, None, (), ())]


def test_nvml_is_asked_first(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", library(**WHOLE))
    assert [each.name for each in Gpus(write(tmp_path, JETSON_ORIN_NANO)).readings()] == ["NVIDIA A2", "NVIDIA T4"]


def test_a_machine_without_a_gpu_has_none(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Gpus(tmp_path).readings() == []
