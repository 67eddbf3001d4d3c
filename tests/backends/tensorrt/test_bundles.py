"""Engines in bundles: built by the stage, chosen and run by the runtime, on a fake GPU."""

import msgspec
import numpy as np
import pytest
from fake_tensorrt import expected_logits
from tiny import SHAPES, content

from edgevit.backends.variants import open_variant, unsupported_reason
from edgevit.bundle.store import Bundle
from edgevit.errors import MissingDependencyError
from edgevit.files import sha256_of
from edgevit.progress import Silent
from edgevit.quantization.float16.convert import Float16Plan
from edgevit.runtime import load
from edgevit.stages.build import add, compile_variant, variant_name
from edgevit.stages.runnable import runnable
from edgevit.targets import Target

ORIN = Target(
    description="Orin",
    backend="tensorrt",
    device="GPU",
    dialect="tensorrt",
    precisions=("fp16", "int8"),
    weight_bits=8,
    why="for a test",
    compute_capability="8.7",
)


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


def build_fp16(path, target, scratch, progress):
    bundle = Bundle.open(path)
    plan = Float16Plan(
        model_sha256=sha256_of(bundle.verify_files("float32")), images=1, images_sha256="0" * 64, float32_nodes={}
    )
    scratch.mkdir()
    return add(
        bundle,
        compile_variant(bundle, bundle.verify_float32(), "orin", target, "fp16", plan, scratch, progress=progress),
    )


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "int8-tensorrt-sm87"),
        ({"dialect": "tensorrt-legacy"}, "int8-tensorrt-legacy-sm87"),
        ({"backend": "tensorrt-rtx", "compute_capability": "12.0"}, "int8-tensorrt-rtx-sm120"),
        ({"compute_capability": None}, "int8-tensorrt"),
    ],
)
def test_an_engine_has_its_gpu_in_its_name(changes, name):
    assert variant_name(msgspec.structs.replace(ORIN, **changes), "int8") == name


def test_what_is_built_on_the_device_is_run_there(install, exported, tmp_path):
    install("10.16.1")
    notes = Notes()
    bundle = build_fp16(exported, ORIN, tmp_path / "scratch", notes)
    variant = bundle.variant("fp16-tensorrt-sm87")
    names = [file.path.rpartition("/")[2] for file in variant.files]
    assert names == ["model.engine", "engine.json", "kernels.json", "model.onnx"]
    assert any("with tensorrt 10.16.1" in line for line in notes.said)
    assert runnable(bundle, (), notes) == ("float32", "fp16-tensorrt-sm87")
    images = np.random.default_rng(0).normal(size=(20, 3, 16, 16)).astype(np.float32)
    with load(bundle.path, variant=variant.name, check="files") as model:
        np.testing.assert_array_equal(model.infer(images), expected_logits(images, 8))


def test_an_engine_for_another_gpu_is_left_out_until_it_may_be_built_again(install, gpu, exported, tmp_path):
    install("10.16.1")
    bundle = build_fp16(exported, ORIN, tmp_path / "scratch", Notes())
    name = "fp16-tensorrt-sm87"
    gpu.compute_capability = "8.9"
    notes = Notes()
    assert runnable(bundle, (), notes) == ("float32",)
    assert notes.said == [f"Leaving out {name}: it was built for compute capability 8.7, and this GPU has 8.9"]
    with pytest.raises(MissingDependencyError, match=r"8\.7, and this GPU has 8\.9"):
        load(bundle.path, variant=name)
    assert unsupported_reason(bundle, bundle.variant(name), {"rebuild": "yes"}) is None
    images = np.ones((1, 3, 16, 16), dtype=np.float32)
    with load(bundle.path, variant=name, settings={"rebuild": "yes"}, check="files") as model:
        np.testing.assert_array_equal(model.infer(images), expected_logits(images, 8))


def test_for_a_gpu_that_is_not_here_it_is_written_as_onnx(install, gpu, exported, tmp_path):
    install("10.16.1")
    gpu.compute_capability = "8.9"
    notes = Notes()
    bundle = build_fp16(exported, ORIN, tmp_path / "scratch", notes)
    (file,) = bundle.variant("fp16-tensorrt-sm87").files
    assert file.path.endswith("model.onnx")
    assert notes.said == [
        "Writing fp16-tensorrt-sm87 for orin as ONNX, to be built on the device: TensorRT builds for the GPU at hand, "
        "which has compute capability 8.9, not 8.7"
    ]
    assert runnable(bundle, (), notes) == ("float32",)
    assert "TensorRT has not built it yet (edgevit build, on this machine)" in notes.said[-1]


NAME = "fp16-tensorrt-sm87"


@pytest.fixture
def on_orin(install, edgevit, exported, tmp_path):
    """Return a bundle with an engine that the command line built with TensorRT 10.16.1 on an Orin, and its profile."""
    install("10.16.1")
    profile = tmp_path / "orin.toml"
    lines = (f"{key} = {value!r}" for key, value in msgspec.to_builtins(ORIN).items() if isinstance(value, str | int))
    profile.write_text("\n".join((*lines, "precisions = ['fp16']")))
    few = ("--data", SHAPES, "--precision", "fp16", "--dialect", "onnxruntime")
    assert edgevit("quantize", exported, *few).code == 0
    done = edgevit("build", exported, "--target", profile)
    assert done.code == 0, done.err
    assert (exported / NAME / "model.engine").is_file()
    return exported, profile


def test_an_engine_of_another_version_ends_the_command_with_both(on_orin, install, edgevit, pictures):
    bundle, _ = on_orin
    install("10.3.0")
    done = edgevit("predict", bundle, pictures[0], "--variant", NAME)
    assert done.code == 3
    message, remedy = done.failure()
    assert message.endswith("it was built with TensorRT 10.16.1.11, and this is 10.3.0")
    assert "edgevit build" in remedy
    assert "rebuild=yes" in remedy


def test_an_engine_that_the_target_lets_be_built_again_is(on_orin, install, edgevit, pictures, own_cache):
    bundle, profile = on_orin
    profile.write_text(profile.read_text() + "\n[settings]\nrebuild = 'yes'\n")
    assert edgevit("build", bundle, "--target", profile).code == 0
    install("11.4.0")
    done = edgevit("predict", bundle, pictures[0], "--variant", NAME)
    assert done.code == 1  # the fake's answers are not the model's: it was opened, and the golden images say so
    assert "golden images" in done.failure()[0]
    assert "Building an engine of" in done.err
    assert "Building with TensorRT: 100/100" in done.err
    (again,) = own_cache.rglob("model.engine")
    assert b"11.4.0" in again.with_name("engine.json").read_bytes()


@pytest.mark.parametrize("name", ["model.engine", "engine.json", "kernels.json"])
def test_a_corrupt_file_of_an_engine_ends_the_command(on_orin, edgevit, pictures, name):
    bundle, _ = on_orin
    path = bundle / NAME / name
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    for command in (("predict", bundle, pictures[0], "--variant", NAME), ("benchmark", bundle, "--variant", NAME)):
        done = edgevit(*command)
        assert done.code == 2
        assert done.failure()[0].startswith(f"{path} is damaged")


def test_a_file_of_the_same_hash_that_tensorrt_does_not_take_ends_the_command(on_orin, edgevit, pictures):
    """Such as one that another program has put there, with a manifest that agrees."""
    bundle, _ = on_orin
    path, manifest = bundle / NAME / "model.engine", bundle / "manifest.json"
    said, before = path.with_name("engine.json"), [sha256_of(path), path.stat().st_size]
    path.write_bytes(b"garbage".ljust(before[1], b"."))
    told = [said.read_text(), sha256_of(said)]
    said.write_text(told[0].replace(before[0], sha256_of(path)))
    agreed = manifest.read_text().replace(before[0], sha256_of(path)).replace(told[1], sha256_of(said))
    manifest.write_text(agreed)
    done = edgevit("predict", bundle, pictures[0], "--variant", NAME)
    assert done.code == 2, done.err
    message, remedy = done.failure()
    assert "TensorRT 10.16.1.11 cannot load" in message
    assert "build this variant again" in remedy


def test_a_bundle_cannot_allow_its_engines_to_run_code(install, exported, tmp_path):
    fake = install("10.16.1")
    target = msgspec.structs.replace(ORIN, settings={"host_code": "yes"})
    bundle = build_fp16(exported, target, tmp_path / "scratch", Notes())
    assert bundle.variant("fp16-tensorrt-sm87").settings == {"host_code": "yes"}
    for settings, allowed in (({}, False), ({"host_code": "yes"}, True)):
        with open_variant(bundle, "fp16-tensorrt-sm87", settings=settings):
            assert fake.seen.host_code is allowed


def test_int8_that_does_not_run_in_integers_is_not_kept(install, gpu, edgevit, exported, tmp_path):
    profile = tmp_path / "orin.toml"
    lines = (f"{key} = {value!r}" for key, value in msgspec.to_builtins(ORIN).items() if isinstance(value, str | int))
    profile.write_text("\n".join((*lines, "precisions = ['int8']")))
    assert edgevit("quantize", exported, "--data", SHAPES, "--dialect", "tensorrt").code == 0
    before = content(exported)
    install("10.16.1")  # whose engines have no integer kernels
    done = edgevit("build", exported, "--target", profile, "--precision", "int8")
    assert done.code == 1
    assert "quantized layers do not run on integer kernels" in done.err
    assert content(exported) == before
