"""What follows from what the probes have found, and that no engine can take the command down."""

import sys
from collections.abc import Iterable

import msgspec
import pytest

from edgevit.backends.probes import PROBES, Finding
from edgevit.progress import SILENT
from edgevit.stages.availability import command_abilities, target_availabilities
from edgevit.stages.doctor import run_probes, this_machine
from edgevit.targets import load_profile, target_names

PROFILES = {name: load_profile(name) for name in target_names()}
PYTHON = (sys.executable, "-m")


def findings(**changed: Finding) -> list[Finding]:
    """Return what a workstation without a GPU has, with changes by name."""
    here = {
        "onnxruntime": Finding(name="onnxruntime", version="1.31.1", builds=True, runs=True),
        "openvino": Finding(name="openvino", version="2026.4.1", builds=True, runs=True),
        "gpu": Finding(name="openvino", device="GPU", version="2026.4.1", problem="no GPU", remedy="get one"),
        "npu": Finding(name="openvino", device="NPU", version="2026.4.1", problem="no NPU", remedy="get one"),
        "tensorrt": Finding(name="tensorrt", device="GPU", problem="no TensorRT", remedy="pip install it"),
        "rtx": Finding(name="tensorrt-rtx", device="GPU", problem="no RTX", remedy="pip install it"),
        **{name: Finding(name=name, runs=True) for name in ("train", "quantize", "report")},
    }
    assert changed.keys() <= here.keys()
    return list((here | changed).values())


def verdicts_on(found: Iterable[Finding], machine: str = "x86_64"):
    """Return the verdicts by the name of the profile."""
    found = list(found)
    verdicts = target_availabilities(PROFILES, found, command_abilities(found), machine)
    assert len(verdicts) == len(PROFILES)
    return {verdict.name.partition("@")[0]: verdict for verdict in verdicts}


def tensorrt(version, capability):
    gpu = {"device": "GPU", "device_name": "GPU", "compute_capability": capability}
    return Finding(name="tensorrt", version=version, builds=True, runs=True, **gpu)


def test_a_workstation():
    verdicts = verdicts_on(findings())
    runs = {name for name, verdict in verdicts.items() if verdict.run}
    assert runs == {"x86-onnxruntime", "x86-openvino", "portable"}
    builds = {name for name, verdict in verdicts.items() if verdict.build == "yes"}
    assert builds == {*runs, "arm64-onnxruntime"}
    onnx = {name for name, verdict in verdicts.items() if verdict.build == "onnx"}
    assert onnx == {name for name, profile in PROFILES.items() if profile.backend.startswith("tensorrt")}
    for name, verdict in verdicts.items():
        assert verdict.run == (verdict.problem is None) == (verdict.remedy is None), name
    assert verdicts["intel-npu"].problem == "no NPU"
    assert verdicts["arm64-onnxruntime"].problem == "it is for aarch64, and this is x86_64"


def test_an_orin_with_jetpack_6():
    verdicts = verdicts_on(findings(tensorrt=tensorrt("10.3.0.30", "8.7")), "aarch64")
    orin = verdicts["jetson-orin-nano"]
    assert (orin.name, orin.build, orin.run) == ("jetson-orin-nano@6.2", "yes", True)
    assert verdicts["jetson-thor"].problem == "it is for tensorrt >=10.16,<12, and this is 10.3.0.30"
    assert not verdicts["tensorrt"].run
    assert verdicts["tensorrt-legacy"].run
    assert verdicts["arm64-onnxruntime"].run
    assert not verdicts["x86-onnxruntime"].run


@pytest.mark.parametrize(
    ("version", "edition"), [("8.6.2", "@6.0"), ("10.3.0", "@6.2"), ("10.16.1", ""), ("11.4.1", "")]
)
def test_the_edition_is_that_of_the_version(version, edition):
    assert (
        verdicts_on(findings(tensorrt=tensorrt(version, "8.7")), "aarch64")["jetson-agx-orin"].name
        == f"jetson-agx-orin{edition}"
    )


def test_an_orin_with_jetpack_5_is_told_both_versions():
    verdict = verdicts_on(findings(tensorrt=tensorrt("8.5.2", "8.7")), "aarch64")["jetson-orin-nx"]
    assert (verdict.build, verdict.run) == ("no", False)
    assert verdict.problem == "it is for tensorrt >=10.16,<12, and this is 8.5.2"


def test_another_gpu_is_told_apart():
    verdicts = verdicts_on(findings(tensorrt=tensorrt("10.16.1", "9.0")))
    assert verdicts["nvidia-hopper"].run
    assert verdicts["nvidia-ampere"].problem == "it is for compute capability 8.0, and this GPU has 9.0"
    assert verdicts["nvidia-ampere"].build == "onnx"


def test_tensorrt_rtx_compiles_for_gpus_that_are_not_here():
    rtx = Finding(name="tensorrt-rtx", device="GPU", version="1.7.1", builds=True, problem="no GPU", remedy="get one")
    verdict = verdicts_on(findings(rtx=rtx))["rtx-desktop"]
    assert (verdict.build, verdict.run, verdict.problem) == ("yes", False, "no GPU")


def test_the_edition_for_the_gpu_that_is_here_runs():
    rtx = msgspec.structs.replace(tensorrt("1.7.1", "8.6"), name="tensorrt-rtx")
    verdict = verdicts_on(findings(rtx=rtx))["rtx-desktop"]
    assert (verdict.name, verdict.run) == ("rtx-desktop@ampere", True)


def test_trtexec_builds_what_it_cannot_run():
    found = msgspec.structs.replace(
        tensorrt("8.6.2", "8.7"), runs=False, problem="trtexec builds engines", remedy="apt install the bindings"
    )
    verdict = verdicts_on(findings(tensorrt=found), "aarch64")["jetson-orin-nano"]
    assert (verdict.name, verdict.build, verdict.run) == ("jetson-orin-nano@6.0", "yes", False)
    assert verdict.remedy == "apt install the bindings"


def test_an_engine_that_is_too_old():
    old = Finding(name="openvino", version="2023.1.0", builds=True, runs=True)
    verdict = verdicts_on(findings(openvino=old))["x86-openvino"]
    assert (verdict.build, verdict.run) == ("no", False)
    assert verdict.problem == "it is for openvino >=2024.6, and this is 2023.1.0"
    assert verdict.remedy == 'pip install "openvino>=2024.6"'


def test_a_device_without_the_tools_to_build_runs_all_the_same():
    lacking = Finding(name="quantize", problem="the Python package 'onnx' is not installed", remedy="pip install it")
    found = findings(quantize=lacking)
    verdict = verdicts_on(found)["x86-onnxruntime"]
    assert (verdict.build, verdict.run, verdict.remedy) == ("no", True, "pip install it")
    works = {command.name: command.works for command in command_abilities(found)}
    assert works == {"train": True, "export": True, "quantize, build": False, "pipeline": False, "report": True}


# In processes of their own


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Return a function that puts a module of the given source before all others, for child processes too."""
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name, source: (tmp_path / f"{name}.py").write_text(source)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import os; os.abort()", "it crashed (Aborted)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it crashed (Segmentation fault)"),
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10: cannot open"),
        ("raise RuntimeError('something else')", "RuntimeError: something else"),
        ("import sys; sys.exit(3)", "it ended with code 3"),
        ("print('noise on standard output'); raise OSError('libcudart.so')", "TensorRT does not load: libcudart.so"),
    ],
)
def test_an_engine_that_breaks_is_only_said_to(broken, source, problem):
    broken("tensorrt", source)
    (found,) = run_probes(["tensorrt"], SILENT, command=PYTHON)["tensorrt"]
    assert not found.runs
    assert problem in found.problem
    assert found.remedy


def test_an_engine_that_hangs_is_ended(broken):
    broken("tensorrt", "import time; time.sleep(1000)")
    (found,) = run_probes(["tensorrt"], SILENT, command=PYTHON, timeout_s=2)["tensorrt"]
    assert found.problem == "it did not answer in time"


def test_a_file_in_the_working_folder_is_no_engine(tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text("import os; os.abort()")
    monkeypatch.chdir(tmp_path)
    (found,) = run_probes(["tensorrt"], SILENT, command=PYTHON)["tensorrt"]
    assert "not installed" in found.problem


def test_memory_is_read_where_the_system_tells(tmp_path):
    path = tmp_path / "proc/meminfo"
    path.parent.mkdir()
    path.write_text("MemTotal:        7802884 kB\nMemFree:  1 kB\nMemAvailable:    6021120 kB\nHugePages_Total:  0\n")
    found = this_machine(tmp_path)
    assert (found.memory_mb, found.memory_free_mb) == (7620, 5880)
    assert found.disk_free_mb > 0
    assert this_machine(tmp_path / "nowhere").memory_mb is None


def test_every_engine_of_a_target_has_a_probe():
    assert {profile.backend for profile in PROFILES.values()} <= PROBES.keys()
