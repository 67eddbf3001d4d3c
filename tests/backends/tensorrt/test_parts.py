"""The small parts: bindings, settings, memory, progress, the log, and what works on this machine."""

import ctypes
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.backends import available_backends, backend_class
from edgevit.backends.base import BuildOptions
from edgevit.backends.tensorrt import cuda
from edgevit.backends.tensorrt.bindings import Bindings, load_bindings, version_numbers
from edgevit.backends.tensorrt.build_memory import plan_elsewhere, plan_memory
from edgevit.backends.tensorrt.log import DetailedLog, Log
from edgevit.backends.tensorrt.monitor import BuildProgress
from edgevit.backends.tensorrt.settings import DEFAULTS, parse_settings
from edgevit.errors import BundleError, MissingDependencyError, MissingError
from edgevit.progress import SILENT, Silent


def without_driver(monkeypatch):
    def refuse(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)


def module(name, version):
    made = ModuleType(name)
    made.__version__ = version
    return made


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_bindings_that_are_not_there(monkeypatch, flavour):
    monkeypatch.setitem(sys.modules, flavour.replace("-", "_"), None)
    with pytest.raises(MissingDependencyError, match="is not installed") as caught:
        load_bindings(flavour)
    assert caught.value.remedy == backend_class(flavour).how_to_install()
    assert "pip install" in caught.value.remedy


def test_bindings_that_lack_a_library(monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError, match=r"TensorRT does not load: libnvinfer\.so\.10"):
        load_bindings("tensorrt")


@pytest.mark.parametrize(("flavour", "version"), [("tensorrt", "8.5.2.2"), ("tensorrt-rtx", "1.2.0.54")])
def test_bindings_that_are_too_old(monkeypatch, flavour, version):
    name = flavour.replace("-", "_")
    monkeypatch.setitem(sys.modules, name, module(name, version))
    with pytest.raises(MissingDependencyError, match=f"{version} is too old"):
        load_bindings(flavour)


def test_what_bindings_have_is_found_by_name():
    trt = SimpleNamespace(BuilderFlag=SimpleNamespace(FP16=0))
    bindings = Bindings(trt, "tensorrt", "10.3.0")
    assert bindings.has("BuilderFlag")
    assert bindings.has("BuilderFlag.FP16")  # whose number is 0
    assert not bindings.has("BuilderFlag.INT8")
    assert not bindings.has("ComputeCapability.SM86")
    assert bindings.values("ComputeCapability") == []


@pytest.mark.parametrize(
    ("flavour", "version", "typed"),
    [
        ("tensorrt", "8.6.1", False),
        ("tensorrt", "10.11.0.33", False),
        ("tensorrt", "10.12.0", True),
        ("tensorrt", "11.4.0.106", True),
        ("tensorrt-rtx", "1.7.1.116", True),
    ],
)
def test_from_10_12_on_types_carry_the_precision(flavour, version, typed):
    assert Bindings(None, flavour, version).strongly_typed is typed


def test_versions_are_compared_as_numbers():
    assert version_numbers("10.16.1.11") > version_numbers("10.3.0") > version_numbers("8.6.1")


def test_settings():
    assert parse_settings("tensorrt", {}).hardware_compatibility == "none"
    assert parse_settings("tensorrt", {"contexts": "2"}).contexts == "2"
    assert set(DEFAULTS) >= {"rebuild", "host_code"}
    with pytest.raises(BundleError, match="has no '9' for the setting 'contexts'") as caught:
        parse_settings("tensorrt", {"contexts": "9"})
    assert caught.value.remedy == "use one of 1, 2, 3, 4"
    with pytest.raises(BundleError, match="tensorrt-rtx has no setting 'fp16'"):
        parse_settings("tensorrt-rtx", {"fp16": "yes"})


@given(st.integers(0, 1 << 32), st.none() | st.integers(64, 1 << 16), st.none() | st.integers(0, 1 << 20))
def test_a_plan_never_takes_more_than_there_is(model_bytes, wanted, free):
    least = plan_memory(model_bytes, 64, None).total_mb
    if free is not None and free < least:
        with pytest.raises(MissingError, match=f"{free:,} are free"):
            plan_memory(model_bytes, wanted, free)
        return
    plan = plan_memory(model_bytes, wanted, free)
    assert plan.workspace_mb >= 64
    assert wanted is None or plan.workspace_mb <= wanted
    assert free is None or plan.total_mb <= free
    assert f"{plan.total_mb:,} MiB" in plan.sentence()
    assert "workspace" not in plan_elsewhere(model_bytes, free).sentence()


class Bar(Silent):
    def __init__(self):
        self.seen = []

    def track(self, items, *, total, label):
        for item in items:
            self.seen.append(item)
            yield item


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.integers(0, 12)), max_size=60))
def test_progress_never_goes_back_whatever_is_reported(steps):
    bar = Bar()
    build = BuildProgress(bar, "building")
    build.start("A", None, 4)
    build.start("B", "A", 10)
    build.start("C", "B", 0)
    for phase, step in steps:
        build.step(phase, step)
    build.finish("B")
    build.finish("A")
    assert bar.seen == list(range(100))


def test_progress_counts_steps_within_steps():
    bar = Bar()
    build = BuildProgress(bar, "building")
    build.start("whole", None, 2)
    build.start("part", "whole", 10)
    build.step("part", 4)  # a quarter of all
    assert len(bar.seen) == 25
    build.step("whole", 0)
    assert len(bar.seen) == 50
    BuildProgress(SILENT, "never begun").close()


def test_the_log_keeps_what_matters():
    log = DetailedLog()
    for severity in ("ERROR", "WARNING", "INFO"):
        log.add(severity, f"{severity}\n of two lines")
    assert (log.errors, len(log.warnings), len(log.lines)) == (["ERROR\n of two lines"], 1, 6)
    assert log.reason() == "ERROR of two lines"
    assert Log().reason() == "no reason given"


def test_without_a_driver_nothing_crashes_and_the_reason_is_told(monkeypatch, tmp_path):
    without_driver(monkeypatch)
    with pytest.raises(MissingDependencyError, match=r"libcuda\.so\.1 does not load") as caught:
        cuda.open_driver()
    assert caught.value.exit_code == 3
    for flavour in ("tensorrt", "tensorrt-rtx"):
        assert "libcuda.so.1" in backend_class(flavour).unavailable_reason()
        assert "libcuda.so.1" in backend_class(flavour).unsupported_reason(tmp_path / "model.engine", {})
        assert flavour not in available_backends()
    assert "libcuda.so.1" in backend_class("tensorrt").unbuildable_reason(BuildOptions(compute_capability="8.7"))
    assert backend_class("openvino").unsupported_reason(tmp_path / "model.xml", {}) is None
    assert backend_class("openvino").unbuildable_reason(BuildOptions()) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"gpus": 0}, "CUDA_ERROR_NO_DEVICE"),
        ({"failing": {"cuInit": 999}}, "error 999"),
        ({"failing": {"cuDeviceGetCount": 1}}, "INVALID"),
    ],
)
def test_a_driver_that_does_not_start(gpu, changes, problem):
    for name, value in changes.items():
        setattr(gpu, name, value)
    with pytest.raises(MissingDependencyError, match=f"finds no GPU: .*{problem}"):
        cuda.open_driver()


def test_what_works_with_a_gpu(install, gpu, tmp_path):
    install("10.16.1")
    tensorrt = backend_class("tensorrt")
    assert tensorrt.unavailable_reason() is None
    assert "tensorrt" in available_backends()
    assert tensorrt.unbuildable_reason(BuildOptions(compute_capability="8.7")) is None
    assert tensorrt.unbuildable_reason(BuildOptions()) is None
    assert "has compute capability 8.7, not 8.9" in tensorrt.unbuildable_reason(BuildOptions(compute_capability="8.9"))
    assert "has not built it yet" in tensorrt.unsupported_reason(tmp_path / "model.onnx", {})
    assert tensorrt.unsupported_reason(tmp_path / "model.engine", {}) is None  # opening it says what is wrong
    with cuda.CudaDevice(cuda.open_driver()) as device:
        assert (device.name, device.compute_capability) == ("Fake GPU", "8.7")


def test_looking_for_backends_imports_none():
    code = "import sys; from edgevit.backends import available_backends; available_backends(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"openvino", "onnxruntime"}.intersection(done.stdout.split())
