"""The description of a machine."""

import json
import platform
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import edgevit
from edgevit.evaluation.environment import environment
from edgevit.system import usable_cores

pytestmark = pytest.mark.usefixtures("all_cores")

X86 = """processor\t: 0
model name\t: Intel(R) Core(TM) i5-1240P
flags\t\t: fpu sse avx2 avx_vnni amx_int8 rdtscp

processor\t: 1
model name\t: another
flags\t\t: avx512f
"""
PI = "processor\t: 0\nFeatures\t: fp asimd asimddp crc32\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"


def fake_root(tmp_path, cpuinfo, board=None):
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    if board:
        (tmp_path / "proc/device-tree/model").write_bytes(board)
    return tmp_path


def test_this_machine_is_described():
    place = environment()
    assert place.cores == usable_cores() >= 1
    assert place.machine.endswith(platform.machine()) or platform.machine() in place.machine
    assert place.packages["numpy"] == np.__version__ == metadata.version("numpy")
    assert datetime.fromisoformat(place.measured_at).utcoffset() is not None
    assert platform.node() not in (place.machine, place.os)


def test_an_x86_processor_by_its_first_core(tmp_path):
    place = environment(fake_root(tmp_path, X86))
    assert place.cpu == "Intel(R) Core(TM) i5-1240P"
    assert place.cpu_features == ("avx2", "avx_vnni", "amx_int8")


def test_an_arm_board_by_its_number_and_name(tmp_path):
    place = environment(fake_root(tmp_path, PI, b"Raspberry Pi 5 Model B Rev 1.0\0"))
    assert place.cpu == "Cortex-A76"
    assert place.cpu_features == ("asimd", "asimddp")
    assert place.machine == f"Raspberry Pi 5 Model B Rev 1.0 ({platform.machine()})"


@pytest.mark.parametrize("cpuinfo", ["", ":::\n\0", "CPU implementer\t: 0x41\nCPU part\t: zzz\n"])
def test_a_processor_that_says_nothing_is_no_error(tmp_path, cpuinfo):
    assert environment(fake_root(tmp_path, cpuinfo)).cpu


def test_an_unknown_arm_core_is_named_by_its_numbers(tmp_path):
    place = environment(fake_root(tmp_path, PI.replace("0xd0b", "0xfff")))
    assert place.cpu == "ARM core, implementer 0x41, part 0xfff"


def test_nothing_heavy_is_imported():
    code = """
import json, sys
import edgevit.evaluation.latency, edgevit.evaluation.accuracy, edgevit.evaluation.worker, edgevit.report.html
from edgevit.evaluation.environment import environment
environment()
heavy = ("torch", "onnx", "onnxruntime", "openvino", "tensorrt", "scipy", "jinja2")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    repository = Path(edgevit.__file__).parents[1]
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=repository)
    assert json.loads(answer.stdout) == []
