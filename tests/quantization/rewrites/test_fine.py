import numpy as np
import onnxruntime
import pytest

from edgevit.backends import get_backend
from edgevit.quantization.emit import emit
from edgevit.quantization.kernels import check_kernels
from edgevit.quantization.linears import find_linears, load_graph
from edgevit.quantization.prepare import CalibrationImages, prepare, save
from edgevit.quantization.rewrites.fine import first_to_add, multiply_rest
from edgevit.recipes import Rewrites

FIRST = ["blocks.0.attn.proj", "blocks.0.mlp.fc2"]


def run(path, images):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


def test_the_first_to_end_an_attention_or_mlp(quantized):
    graph = load_graph(quantized.path).graph
    assert [layer.name for layer in first_to_add(graph, 3)] == [*FIRST, "blocks.1.attn.proj"]
    assert first_to_add(graph, 0) == []


def test_the_rest_changes_no_logits(quantized, tmp_path):
    model = load_graph(quantized.path)
    plan = {linear.name: linear.quantization for linear in quantized.plan.linears}
    for layer in first_to_add(model.graph, 4):
        multiply_rest(model.graph, layer, plan[layer.name])
    save(model, tmp_path / "fine.onnx")
    names = [layer.name for layer in find_linears(load_graph(tmp_path / "fine.onnx").graph)]
    assert [name for name in names if name.endswith("[rest]")] == [
        f"blocks.{block}.{layer}[rest]" for block in (0, 1) for layer in ("attn.proj", "mlp.fc2")
    ]
    np.testing.assert_allclose(
        run(tmp_path / "fine.onnx", quantized.images), run(quantized.path, quantized.images), atol=1e-5
    )


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_layers_with_a_rest_err_less_and_both_products_run_in_integers(quantized, tmp_path, name):
    images = CalibrationImages(lambda: iter([quantized.images]), 1)
    exact = run(quantized.path, quantized.images)
    backend, errors = get_backend(name), []
    for count in (0, 4):
        places = {"asymmetric": tmp_path / f"{count}.onnx"}
        one = prepare(quantized.path, images, places, rewrites=Rewrites(fine=count))[1]["asymmetric"]
        emit(one.model, one.plan, name, tmp_path / "int8.onnx")
        built = backend.build(tmp_path / "int8.onnx", tmp_path / str(count))[0]
        with backend.open(built, threads=1, settings={}) as session:
            kernels = check_kernels(session, one.plan.integer_layers())
            errors.append(((session.infer(quantized.images) - exact) ** 2).mean())
        assert kernels.float_linears == ()
        assert len([linear for linear in one.plan.linears if linear.name.endswith("[rest]")]) == count
        assert one.plan.integer_layers() == tuple(quantized.layers)
    assert errors[1] < errors[0]
