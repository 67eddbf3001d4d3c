"""The program is a small script here that keeps how it was called; the real one could not be run."""

import json
import stat

import msgspec
import onnx
import pytest

from edgevit.backends import backend_class, get_backend
from edgevit.backends.base import BatchProfile, BuildOptions
from edgevit.backends.tensorrt import trtexec
from edgevit.backends.tensorrt.builder import EngineBuild
from edgevit.backends.tensorrt.settings import TensorRTSettings
from edgevit.backends.tensorrt.trtexec import find_trtexec, flags, version_in
from edgevit.errors import GraphError, MissingDependencyError, MissingError

SCRIPT = """#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] [b1] # trtexec $*"
printf '%s\\n' "$@" >> {calls}
for argument in "$@"; do
  case $argument in --saveEngine=*) {action} ;; esac
done
"""
WRITE = 'printf engine > "${argument#--saveEngine=}"'
OPTIONS = BuildOptions(batch=BatchProfile(min=1, opt=2, max=4), compute_capability="8.7", precision="int8")


@pytest.fixture
def program(tmp_path, monkeypatch, gpu):
    """Return what puts a program on the PATH; without the Python bindings, unless they are really installed."""
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(version="8601", action=WRITE):
        path = folder / "trtexec"
        path.write_text(SCRIPT.format(version=version, calls=tmp_path / "calls", action=action))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return write


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("[TensorRT v8601]", "8.6.1"),
        ("[TensorRT v100300]", "10.3.0"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101601] [b11] # trtexec --help", "10.16.1"),
        ("[TensorRT v110400]", "11.4.0"),
        ("[TensorRT v8503]", None),  # too old
        ("trtexec: command not found", None),
        ("", None),
    ],
)
def test_the_version_in_the_first_line(banner, version):
    assert version_in(banner) == version


def test_without_bindings_and_program_it_says_what_to_install(program):
    assert find_trtexec() is None
    with pytest.raises(MissingDependencyError, match="'tensorrt' is not installed") as caught:
        get_backend("tensorrt")
    assert "pip install tensorrt" in caught.value.remedy
    assert "'tensorrt' is not installed" in backend_class("tensorrt").unbuildable_reason(OPTIONS)


def test_where_nvidias_packages_put_it(program, monkeypatch, tmp_path):
    path = program().rename(tmp_path / "trtexec")
    assert find_trtexec() is None
    monkeypatch.setattr(trtexec, "_PLACES", (path,))
    assert find_trtexec() == trtexec.Trtexec(path, "8.6.1")


def test_a_whole_build(program, gpu, model, tmp_path, own_cache):
    program()
    backend = get_backend("tensorrt")
    assert backend.version() == "8.6.1"
    assert backend_class("tensorrt").unbuildable_reason(OPTIONS) is None
    engine, info, source = backend.build(model, tmp_path / "built", OPTIONS)
    assert engine.read_bytes() == b"engine"
    assert source.read_bytes() == model.read_bytes()
    told = json.loads(info.read_text())
    assert (told["driver"], told["version"], told["batch"]["max"]) == ("trtexec", "8.6.1", 4)
    calls = (tmp_path / "calls").read_text().split()
    assert {f"--onnx={model}", "--fp16", "--int8", "--skipInference", "--profilingVerbosity=detailed"} < set(calls)
    assert {"--minShapes=images:1x1x4x4", "--optShapes=images:2x1x4x4", "--maxShapes=images:4x1x4x4"} < set(calls)
    kept = own_cache / "tensorrt" / "timing-8.6.1-sm87.cache"
    assert f"--timingCacheFile={kept}" in calls
    assert kept.parent.is_dir()


def test_running_takes_the_bindings(program, gpu, model, tmp_path):
    program()
    backend = get_backend("tensorrt")
    engine = backend.build(model, tmp_path / "built", OPTIONS)[0]
    with pytest.raises(MissingDependencyError, match="trtexec builds engines; to run one"):
        backend.open(engine, threads=0, settings={})
    assert "'tensorrt' is not installed" in backend_class("tensorrt").unavailable_reason()


def test_a_fixed_batch_has_no_shapes(program, gpu, model, tmp_path):
    program()
    fixed = onnx.load(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(fixed, tmp_path / "fixed.onnx")
    info = get_backend("tensorrt").build(tmp_path / "fixed.onnx", tmp_path / "built", OPTIONS)[1]
    assert json.loads(info.read_text())["batch"] == {"min": 2, "opt": 2, "max": 2}
    assert "Shapes" not in (tmp_path / "calls").read_text()


@pytest.mark.parametrize(
    ("action", "error", "reason"),
    [
        ('echo "[01/01] [E] Error: no such operator"; exit 1', GraphError, "Error: no such operator"),
        ('echo "[E] Error: out of memory" >&2; exit 1', MissingError, "Error: out of memory"),
        ("exit 3", GraphError, "it ended with 3"),
        (":", GraphError, "it ended with 0"),
    ],
)
def test_its_last_error_is_the_reason(program, gpu, model, tmp_path, action, error, reason):
    program(action=action)
    with pytest.raises(error, match=f"trtexec cannot build the engine: {reason}"):
        get_backend("tensorrt").build(model, tmp_path / "built", OPTIONS)
    assert not (tmp_path / "built").exists()


JOB = EngineBuild(model="m", compute_capability="8.7", precision="int8", workspace_mb=512)


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("8.6.1", {"--fp16", "--int8"}),
        ("10.3.0", {"--fp16", "--int8"}),
        ("10.16.1", {"--stronglyTyped"}),
        ("11.4.0", set()),
    ],
)
def test_options_of_a_version(version, kind):
    common = {
        "--skipInference",
        "--profilingVerbosity=detailed",
        "--maxAuxStreams=0",
        "--memPoolSize=workspace:512",
    }
    assert set(flags(JOB, version)) == common | kind


def test_options_for_settings():
    chosen = TensorRTSettings(hardware_compatibility="ampere+", version_compatible="yes", optimization_level="5")
    job = msgspec.structs.replace(JOB, settings=chosen, precision="float32", workspace_mb=None)
    assert set(flags(job, "10.3.0")) == {
        "--skipInference",
        "--profilingVerbosity=detailed",
        "--maxAuxStreams=0",
        "--noTF32",
        "--hardwareCompatibilityLevel=ampere+",
        "--versionCompatible",
        "--builderOptimizationLevel=5",
    }


def test_what_is_no_onnx_file(program, gpu, tmp_path):
    program()
    (tmp_path / "x.onnx").write_bytes(b"garbage")
    with pytest.raises(GraphError, match=r"x\.onnx is no ONNX file"):
        get_backend("tensorrt").build(tmp_path / "x.onnx", tmp_path / "built", OPTIONS)
