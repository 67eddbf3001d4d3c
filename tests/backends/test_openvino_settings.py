import os
from hashlib import sha256

import pytest

from edgevit.backends import get_backend
from edgevit.backends.openvino_settings import DEFAULTS, ModelCache, check_device, checked, properties
from edgevit.errors import BundleError, MissingDependencyError, StorageError

pytestmark = pytest.mark.usefixtures("all_cores")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEVIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_openvino_is_told():
    by_itself = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    assert properties({}, threads=0) == by_itself
    assert properties({}, threads=3) == by_itself | {"INFERENCE_NUM_THREADS": "3"}
    chosen = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "4", "CACHE": "on"}
    expected = by_itself | {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "4"}
    assert properties(chosen, threads=0) == expected
    assert properties(chosen, threads=1) == expected | {"INFERENCE_NUM_THREADS": "1"}


def test_what_is_the_processors_is_not_pinned_elsewhere():
    assert properties({"DEVICE": "NPU"}, threads=2) == {"PERFORMANCE_HINT": "LATENCY"}
    assert properties({"DEVICE": "GPU.1", "INFERENCE_PRECISION_HINT": "f16"}, threads=2) == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f16",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEVICE", "TPU"),
        ("DEVICE", "gpu"),
        ("DEVICE", "AUTO:CPU"),
        ("INPUT", "uint8"),
        ("CACHE", "folder"),
        ("PERFORMANCE_HINT", "FAST"),
        ("NUM_STREAMS", "0"),
        ("NUM_STREAMS", "2\n"),
        ("INFERENCE_NUM_THREADS", "-1"),
    ],
)
def test_a_value_that_a_setting_cannot_have(name, value):
    with pytest.raises(BundleError, match=name) as caught:
        checked({name: value})
    assert caught.value.remedy.startswith("use ")


def test_what_is_taken_by_itself_is_valid():
    assert checked({}) == DEFAULTS


def test_a_device_that_is_there():
    check_device("GPU", ["CPU", "GPU"])
    check_device("GPU", ["CPU", "GPU.0", "GPU.1"])
    check_device("GPU.1", ["CPU", "GPU.0", "GPU.1"])


@pytest.mark.parametrize(
    ("device", "found", "remedy"),
    [
        ("GPU", ["CPU"], "intel-opencl-icd"),
        ("NPU", ["CPU", "GPU"], "intel-npu-driver"),
        ("GPU.2", ["CPU", "GPU.0", "GPU.1"], "use GPU.0 or GPU.1"),
        ("CPU", [], "a target that is here"),
    ],
)
def test_a_device_that_is_not_there(device, found, remedy):
    with pytest.raises(MissingDependencyError, match=f"finds no {device} here") as caught:
        check_device(device, found)
    assert caught.value.exit_code == 3
    assert all(name in caught.value.message for name in found)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("kind", ["GPU", "NPU"])
def test_a_model_for_a_device_that_this_machine_lacks(model, tmp_path, kind):
    backend = get_backend("openvino")
    found = backend._engine.Core().available_devices
    if any(name.startswith(kind) for name in found):
        pytest.skip(f"this machine has a {kind}")
    with pytest.raises(MissingDependencyError, match=f"finds no {kind} here, but CPU"):
        backend.open(backend.build(model, tmp_path)[0], threads=0, settings={"DEVICE": kind})


def infer(path, images, **settings):
    """Return whether the first image was run by what was compiled before, and its logits."""
    with get_backend("openvino").open(path, threads=1, settings={"CACHE": "on", **settings}) as session:
        return session._compiled.get_property("LOADED_FROM_CACHE"), session.infer(images[:1])


def test_what_was_compiled_once_is_used_again(model, tmp_path, images, cache):
    path = get_backend("openvino").build(model, tmp_path / "ir")[0]
    first, again = infer(path, images), infer(path, images)
    assert (first[0], again[0]) == (False, True)
    assert (first[1] == again[1]).all()
    assert [blob.stat().st_size > 0 for blob in cache.rglob("*.blob")] == [True]


def test_what_was_compiled_for_several_images_is_kept_too(model, tmp_path, images, cache):
    path = get_backend("openvino").build(model, tmp_path / "ir")[0]
    for _ in range(2):
        with get_backend("openvino").open(path, threads=1, settings={"CACHE": "on"}) as session:
            session.infer(images)
    blobs = list(cache.rglob("*.blob"))
    assert len(blobs) == 2
    for blob in blobs:
        assert blob.with_suffix(".sha256").read_text() == sha256(blob.read_bytes()).hexdigest()


def test_without_the_setting_nothing_is_kept(model, tmp_path, cache):
    backend = get_backend("openvino")
    backend.open(backend.build(model, tmp_path)[0], threads=1, settings={})
    assert not cache.exists()


@pytest.mark.parametrize("changed", ["weights", "description"])
def test_a_changed_model_is_not_served_from_the_cache(model, tmp_path, images, changed):
    path, weights = get_backend("openvino").build(model, tmp_path)
    before = infer(path, images)[1]
    target = weights if changed == "weights" else path
    status, content = target.stat(), bytearray(target.read_bytes())
    if changed == "weights":
        content[:] = [byte ^ 1 if at % 4 == 2 else byte for at, byte in enumerate(content)]
        content[:16] = weights.read_bytes()[:16]  # the sizes for Reshape
    else:
        content[:] = content.replace(b'approximation_mode="ERF"', b'approximation_mode="TANH"')
    assert content != target.read_bytes()
    target.write_bytes(content)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))  # of the same age, which OpenVINO would go by
    cached, after = infer(path, images)
    assert not cached
    assert (after != before).any()


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "without its sum", "with a damaged sum"])
def test_what_is_damaged_in_the_cache_is_compiled_again(model, tmp_path, images, cache, damage):
    path = get_backend("openvino").build(model, tmp_path)[0]
    expected = infer(path, images)[1]
    (blob,), (total,) = cache.rglob("*.blob"), cache.rglob("*.sha256")
    content = bytearray(blob.read_bytes())
    assert total.read_text() == sha256(content).hexdigest()
    blob.chmod(0o600)
    if damage == "flipped":  # in a place where OpenVINO does not notice
        content[10] ^= 1
        blob.write_bytes(content)
    elif damage in ("cut", "empty"):
        blob.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    elif damage == "without its sum":
        total.unlink()
    else:
        total.write_bytes(b"\xff")
    cached, found = infer(path, images)
    assert not cached
    assert (found == expected).all()
    assert infer(path, images)[0]


def test_a_cache_that_cannot_be_written(model, tmp_path, cache):
    cache.write_text("in the way")
    path = get_backend("openvino").build(model, tmp_path / "ir")[0]
    with pytest.raises(StorageError) as caught:
        ModelCache(path, {})
    assert "EDGEVIT_CACHE" in caught.value.remedy


def test_what_was_compiled_for_other_settings_is_not_used(model, tmp_path, images):
    path = get_backend("openvino").build(model, tmp_path)[0]
    infer(path, images)
    for settings in ({"NUM_STREAMS": "2"}, {"PERFORMANCE_HINT": "THROUGHPUT"}, {"INFERENCE_PRECISION_HINT": "f16"}):
        assert [infer(path, images, **settings)[0] for _ in range(2)] == [False, True], settings
    assert infer(path, images)[0]
