"""On ARM64, OpenVINO computes INT8 wrongly where the number of images is not fixed: it gets no such model there."""

import platform

import numpy as np
import onnx
import pytest

openvino = pytest.importorskip("openvino")

from edgevit.backends import get_backend, tiny_model  # noqa: E402
from edgevit.backends.openvino_session import OpenVINOSession  # noqa: E402


@pytest.fixture
def model(tmp_path):
    """A model for any number of images."""
    given = onnx.load_from_string(tiny_model.onnx_bytes())
    for value in (given.graph.input[0], given.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(given, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def compiled_shapes(monkeypatch, machine):
    """Return the list of the shapes that are compiled from now on, on a machine that calls itself ``machine``."""
    shapes, real = [], OpenVINOSession.__init__

    def noting(self, converted, compile_model, *rest):
        def compiling(each):
            shapes.append(each.inputs[0].get_partial_shape())
            return compile_model(each)

        real(self, converted, compiling, *rest)

    monkeypatch.setattr(OpenVINOSession, "__init__", noting)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    return shapes


def answers(model):
    images = np.random.default_rng(0).normal(size=(5, 1, 4, 4)).astype(np.float32)
    with get_backend("openvino").open(model, threads=1, settings={}) as session:
        return [session.infer(images[:count]) for count in (1, 2, 5, 3)]


@pytest.mark.parametrize("machine", ["aarch64", "arm64", "ARM64"])
def test_what_is_compiled_on_arm64_takes_a_fixed_number_of_images(model, monkeypatch, machine):
    expected = answers(model)
    shapes = compiled_shapes(monkeypatch, machine)
    found = answers(model)
    assert shapes
    assert all(shape.is_static for shape in shapes)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_elsewhere_more_images_are_computed_together(model, monkeypatch):
    shapes = compiled_shapes(monkeypatch, "x86_64")
    answers(model)
    assert [shape.is_static for shape in shapes] == [True, False]
