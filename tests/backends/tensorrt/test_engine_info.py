import hashlib
import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgevit.backends.base import BatchProfile
from edgevit.backends.tensorrt.bindings import Bindings
from edgevit.backends.tensorrt.engine_info import EngineInfo, incompatible_reason, read_info
from edgevit.backends.tensorrt.settings import TensorRTSettings
from edgevit.errors import BundleError

CONTENT = b"engine"
INFO = EngineInfo(
    flavour="tensorrt",
    version="10.3.0",
    driver="python",
    compute_capability="8.7",
    batch=BatchProfile(min=1, opt=1, max=4),
    precision="int8",
    settings={"version_compatible": "no"},
    engine_sha256=hashlib.sha256(CONTENT).hexdigest(),
    source_sha256="0" * 64,
)


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "model.engine"
    path.write_bytes(CONTENT)
    INFO.save(tmp_path / "engine.json")
    return path


def change(engine, **values):
    path = engine.with_name("engine.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_is_written_is_read(engine):
    assert read_info(engine) == INFO


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"schema_version": 2}, "has version 2, not 1"),
        ({"flavour": "tensorflow"}, r"Invalid enum value 'tensorflow' - at `\$.flavour`"),
        ({"version": "../../x"}, r"at `\$.version`"),
        ({"version": "10.3.0\n"}, r"at `\$.version`"),
        ({"compute_capability": "87"}, r"at `\$.compute_capability`"),
        ({"batch": {"min": 4, "opt": 1, "max": 1}}, "a batch of 4 to 1 images has no 1 in it"),
        ({"batch": {"max": 1 << 40}}, r"at `\$.batch.max`"),
        ({"engine_sha256": "0" * 64}, "is damaged: it is not the engine that engine.json tells of"),
        ({"settings": {"x": 1}}, r"at `\$.settings"),
        ({"path": "/etc/passwd"}, "unknown field `path`"),
    ],
)
def test_what_cannot_be_is_refused(engine, values, problem):
    change(engine, **values)
    with pytest.raises(BundleError, match=problem):
        read_info(engine)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"\xff", b"[" * 50_000, b"{" + b" " * 70_000 + b"}"],
    ids=["empty", "null", "latin", "deep", "large"],
)
def test_damaged_json(engine, content):
    engine.with_name("engine.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"engine\.json"):
        read_info(engine)


@pytest.mark.parametrize("name", ["engine.json", "model.engine"])
def test_a_missing_file(engine, name):
    engine.with_name(name).unlink()
    with pytest.raises(BundleError, match=f"{name} .*cannot be read: No such file"):
        read_info(engine)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_no_bytes_end_in_another_error(engine, content):
    engine.with_name("engine.json").write_bytes(content)
    with pytest.raises(BundleError):
        read_info(engine)


def fits(info, version="10.3.0", capability="8.7", **given_settings):
    flavour = "tensorrt-rtx" if version.startswith("1.") else "tensorrt"
    return incompatible_reason(info, Bindings(None, flavour, version), capability, TensorRTSettings(**given_settings))


def test_an_engine_is_for_one_version_and_gpu():
    assert fits(INFO) is None
    assert fits(INFO, version="10.3.1") == "it was built with TensorRT 10.3.0, and this is 10.3.1"
    assert fits(INFO, capability="8.6") == "it was built for compute capability 8.7, and this GPU has 8.6"
    assert fits(INFO, version="1.7.1") == "it is an engine of TensorRT, and this is TensorRT-RTX"


@pytest.mark.parametrize(
    ("version", "passes"), [("10.3.0", True), ("10.16.1", True), ("10.2.9", False), ("11.0.0", False), ("9.9.9", False)]
)
def test_a_version_compatible_engine_runs_in_later_ones_of_its_major_version(version, passes):
    info = msgspec.structs.replace(INFO, settings={"version_compatible": "yes"})
    assert (fits(info, version=version, host_code="yes") is None) is passes
    assert (fits(info, version=version) is None) is (version == INFO.version)


@pytest.mark.parametrize(
    ("built", "here", "passes"),
    [("8.0", "12.0", True), ("8.6", "8.7", True), ("8.0", "7.5", False), ("7.5", "8.0", False)],
)
def test_a_hardware_compatible_engine_runs_from_ampere_on(built, here, passes):
    info = msgspec.structs.replace(INFO, compute_capability=built, settings={"hardware_compatibility": "ampere+"})
    assert (fits(info, capability=here) is None) is passes
