"""A variant says which versions of its engine serve it, and where it runs."""

import json

import numpy as np
import pytest

from edgevit.backends.openvino import OpenVINO
from edgevit.backends.openvino_session import OpenVINOSession
from edgevit.bundle.store import Bundle
from edgevit.targets import load_target


def change(bundle, **fields):
    """Change what the manifest says of int8-openvino."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())
    next(each for each in manifest["variants"] if each["name"] == "int8-openvino").update(fields)
    path.write_text(json.dumps(manifest))


def test_a_variant_keeps_its_targets_versions(quantized):
    variants = {variant.name: variant.versions for variant in Bundle.open(quantized).manifest.variants}
    assert variants["int8-openvino"] == load_target("x86-openvino").versions == ">=2024.6"
    assert variants["float32"] == ">=1.20", "what its opset takes"


@pytest.mark.parametrize("command", ["predict", "validate", "benchmark"])
def test_an_engine_of_another_version_is_refused_with_both(edgevit, quantized, pictures, command):
    change(quantized, versions=">=2020,<2021")
    options = {
        "predict": (pictures[0],),
        "validate": ("--data", "shapes:size=16,count=96"),
        "benchmark": ("--duration", "0.1"),
    }
    done = edgevit(command, quantized, *options[command], "--variant", "int8-openvino")
    assert done.code == 3
    message, remedy = done.failure()
    assert message.startswith("variant int8-openvino is for openvino >=2020,<2021, and this is 20")
    assert "build the variant again" in remedy


@pytest.mark.parametrize("wrong", ["newest", "", "~>1"])
def test_versions_that_are_none_are_an_error(edgevit, quantized, pictures, wrong):
    change(quantized, versions=wrong)
    done = edgevit("predict", quantized, pictures[0], "--variant", "int8-openvino")
    assert done.code == 2
    assert "int8-openvino" in done.failure()[0]


@pytest.fixture
def any_device(monkeypatch):
    """Let OpenVINO's CPU stand in for the GPU and the NPU, which are not here."""
    real = OpenVINO.open

    def opened(self, model, *, threads, settings):
        return real(
            self, model, threads=threads, settings={**settings, "DEVICE": "CPU", "INFERENCE_PRECISION_HINT": "f32"}
        )

    monkeypatch.setattr(OpenVINO, "open", opened)


def test_a_device_that_tells_no_kernels_is_judged_by_its_answers(edgevit, quantized, any_device, monkeypatch):
    assert edgevit("build", quantized, "--target", "intel-igpu", "--precision", "int8").code == 0
    variant = Bundle.open(quantized).variant("int8-openvino-gpu")
    assert (variant.settings["DEVICE"], variant.kernels) == ("GPU", None)
    assert Bundle.open(quantized).variant("int8-openvino").settings.get("DEVICE") is None

    real = OpenVINOSession.infer
    monkeypatch.setattr(OpenVINOSession, "infer", lambda self, images: np.roll(real(self, images), 1, axis=1))
    done = edgevit("build", quantized, "--target", "intel-npu", "--precision", "int8")
    assert done.code == 1
    assert "answers to the golden images otherwise" in done.failure()[0]
    assert "int8-openvino-npu" not in [each.name for each in Bundle.open(quantized).manifest.variants]
