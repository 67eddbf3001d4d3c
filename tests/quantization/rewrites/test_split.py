import numpy as np
import onnxruntime
import pytest

from edgevit.backends import get_backend
from edgevit.quantization.emit import emit
from edgevit.quantization.kernels import check_kernels
from edgevit.quantization.linears import find_linears, load_graph
from edgevit.quantization.prepare import CalibrationImages, prepare
from edgevit.quantization.rewrites.split import source_of, split_input

WIDE = np.array([3, 9, 100])


def run(path, images):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


def layers_of(graph):
    return {layer.name: layer for layer in find_linears(graph)}


def test_layers_behind_an_activation_have_a_source(quantized):
    layers = layers_of(load_graph(quantized.path).graph)
    outputs = {layer.output: layer for layer in layers.values()}
    found = {name: source.name for name, layer in layers.items() if (source := source_of(layer, outputs))}
    assert found == {f"blocks.{block}.mlp.fc2": f"blocks.{block}.mlp.fc1" for block in (0, 1)}


def test_the_parts_have_the_weights_of_the_whole(quantized):
    model = load_graph(quantized.path)
    before = layers_of(model.graph)
    fc1, fc2 = before["blocks.0.mlp.fc1"], before["blocks.0.mlp.fc2"]
    split_input(model.graph, fc2, fc1, WIDE)
    model.graph.sort()
    after = layers_of(model.graph)
    np.testing.assert_array_equal(after["blocks.0.mlp.fc2.wide"].weight, fc2.weight[WIDE])
    np.testing.assert_array_equal(after["blocks.0.mlp.fc1"].weight[:, -3:], fc1.weight[:, WIDE])
    assert len(after["blocks.0.mlp.fc2"].weight) == len(fc2.weight) - 3
    np.testing.assert_array_equal(after["blocks.0.mlp.fc2"].bias, fc2.bias)


@pytest.mark.parametrize(("scheme", "dialect"), [("asymmetric", "onnxruntime"), ("symmetric", "portable")])
def test_a_split_model_gives_the_same_and_runs_in_integers(quantized, tmp_path, scheme, dialect):
    """prepare() compares the rewritten model with the original; what is left to see is that it was split."""
    images = CalibrationImages(lambda: iter([quantized.images]), 1)
    one = prepare(quantized.path, images, {scheme: tmp_path / "model.onnx"}, split=8)[1][scheme]
    wide = [name for name in one.plan.integer_layers() if name.endswith(".wide")]
    assert wide == ["blocks.0.mlp.fc2.wide"]  # block 1 computes one token: a split would stand in the way
    emit(one.model, one.plan, dialect, tmp_path / "int8.onnx")
    exact = run(quantized.path, quantized.images)
    error = ((run(tmp_path / "int8.onnx", quantized.images) - exact) ** 2).mean()
    assert error < ((run(quantized.int8[dialect], quantized.images) - exact) ** 2).mean()
    backend = get_backend("onnxruntime")
    with backend.open(tmp_path / "int8.onnx", threads=1, settings={}) as session:
        assert not check_kernels(session, one.plan.integer_layers()).float_linears
