"""Targets of one's own, as docs/openvino.md shows them, through every command."""

import re
from pathlib import Path

import numpy as np
import pytest
from tiny import SHAPES

from edgevit.backends import get_backend
from edgevit.bundle.store import Bundle
from edgevit.runtime import load

DOCS = Path(__file__).resolve().parents[2] / "docs" / "openvino.md"


@pytest.fixture
def targets(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEVIT_CACHE", str(tmp_path / "cache"))
    found = {}
    for text in re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL):
        backend = re.search(r'backend = "(.*)"', text)[1]
        found[backend] = tmp_path / f"{backend}.toml"
        found[backend].write_text(text)
    return found


@pytest.fixture
def target(targets):
    return targets["openvino"]


def input_of(backend, path):
    """Return the type and shape of what a model takes, as the engine itself says."""
    engine = get_backend(backend)._engine
    if backend == "openvino":
        (entry,) = engine.Core().read_model(path).inputs
        return str(entry.get_element_type()), list(entry.shape)
    (entry,) = engine.InferenceSession(path).get_inputs()
    return entry.type, entry.shape


@pytest.mark.parametrize(
    ("backend", "taken"),
    [("openvino", ("<Type: 'uint8_t'>", [1, 16, 16, 3])), ("onnxruntime", ("tensor(uint8)", ["batch", 16, 16, 3]))],
)
def test_a_model_for_pixels_goes_every_way(edgevit, quantized, targets, pictures, backend, taken):
    target, usually = targets[backend], f"int8-{backend}"
    done = edgevit("build", quantized, "--target", target, "--precision", "int8", "--json")
    assert done.code == 0, done.err
    (made,) = done.data()["variants"]
    assert made["name"] == f"int8-{backend}-uint8"
    assert made["kernels"]["integer_linears"] == made["kernels"]["linears"] > 0
    assert input_of(backend, made["path"]) == taken

    done = edgevit("validate", quantized, "--data", SHAPES, "--variant", made["name"], "--json")
    assert done.code == 0, done.err
    both = ("--variant", made["name"], "--variant", usually)
    done = edgevit("benchmark", quantized, *both, "--duration", "0.02", "--batch", "3", "--json")
    assert done.code == 0, done.err

    # The same settings for both: what `quantize` built may compute in BF16 what stays float, by its race.
    target.write_text(target.read_text().replace("uint8-nhwc", "float32-nchw"))
    assert edgevit("build", quantized, "--target", target, "--precision", "int8").code == 0
    with load(quantized, variant=usually) as usual, load(quantized, variant=made["name"]) as pixels:
        images = usual.prepare(Bundle.open(quantized).golden().images)
        np.testing.assert_allclose(usual.infer(images), pixels.infer(images), atol=0.05)
        assert pixels.predict(pictures[0])[0].index == usual.predict(pictures[0])[0].index


@pytest.mark.parametrize(
    ("said", "instead", "code", "message"),
    [
        (
            'backend = "openvino"',
            'backend = "openvino"\ndevice = "NPU"\nweight_bits = 8',
            3,
            "finds no NPU here, but CPU",
        ),
        ('CACHE = "on"', 'CACHE = "yes"', 2, "setting CACHE cannot be 'yes'"),
        ('CACHE = "on"', 'CACHES = "on"', 2, "no setting 'CACHES'"),
        ("max = 1", "max = 0", 2, "max"),
    ],
)
def test_what_is_wrong_in_a_target_is_said(edgevit, exported, target, said, instead, code, message):
    assert said in target.read_text()
    target.write_text(target.read_text().replace(said, instead))
    done = edgevit("build", exported, "--target", target, "--precision", "float32")
    assert done.code == code
    assert message in done.failure()[0]
