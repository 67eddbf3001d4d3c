"""Every dialect: the same arithmetic as a fake-quantized torch model, in a file that is whole and small."""

import copy

import msgspec
import numpy as np
import onnx
import pytest
import torch

from edgevit.backends import get_backend
from edgevit.errors import BundleError, InputError
from edgevit.quantization.calibrate import calibrate
from edgevit.quantization.emit import DIALECTS, emit
from edgevit.quantization.kernels import check_kernels
from edgevit.quantization.plan import make_plan

pytestmark = pytest.mark.parametrize("dialect", DIALECTS)


def run(dialect, path, images):
    with get_backend(dialect).open(path, threads=1, settings={}) as session:
        return session.infer(images)


def fake_quantized(model, plan):
    """Return a copy of ``model`` whose planned Linear layers quantize and dequantize, by torch's own operators."""
    model = copy.deepcopy(model)
    for linear in plan.linears:
        module, chosen = model.get_submodule(linear.name), linear.quantization
        if chosen is None:
            continue
        scales = torch.tensor(chosen.weight_scales)
        zeros = torch.zeros(len(scales), dtype=torch.int32)
        module.weight.data = torch.fake_quantize_per_channel_affine(module.weight.data, scales, zeros, 0, -127, 127)
        module.register_forward_pre_hook(
            lambda _, inputs, chosen=chosen: (
                torch.fake_quantize_per_tensor_affine(
                    inputs[0], chosen.activation_scale, chosen.activation_zero_point, 0, 255
                ),
            )
        )
    return model


@pytest.mark.parametrize("batch", [1, 2, 12])
def test_logits_are_those_of_the_simulation(quantized, dialect, batch):
    images = quantized.images[:batch]
    with torch.inference_mode():
        exact = quantized.model(torch.from_numpy(images)).numpy()
        expected = fake_quantized(quantized.model, quantized.plan)(torch.from_numpy(images)).numpy()
    found = run(dialect, quantized.int8[dialect], images)
    error = np.abs(expected - exact).mean()
    assert error > 1e-3  # quantization does something
    # A sum that lies on the edge between two integers may be rounded either way; all else must be alike.
    assert np.abs(found - expected).mean() < 0.05 * error


def test_the_file_is_well_formed_and_holds_weights_as_integers(quantized, dialect):
    path = quantized.int8[dialect]
    onnx.checker.check_model(str(path))
    model = onnx.load(path)
    before = onnx.load(quantized.path)
    constants = {constant.name: constant for constant in model.graph.initializer}
    for name in quantized.layers:
        assert constants[f"{name}.weight.int8"].data_type == onnx.TensorProto.INT8
        assert f"{name}.weight" not in constants
        for parameter in ("scale", "zero_point"):
            assert list(constants[f"{name}.input.{parameter}"].dims) == []
    assert model.metadata_props == before.metadata_props
    assert [value.name for value in model.graph.input] == ["images"]
    assert model.graph.input == before.graph.input
    assert model.graph.output == before.graph.output


def test_only_the_inputs_of_linear_layers_are_quantized(quantized, dialect):
    graph = onnx.load(quantized.int8[dialect]).graph
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == len(quantized.layers)
    before = onnx.load(quantized.path).graph
    for kind in ("LayerNormalization", "Gelu", "Softmax", "Conv"):
        assert [node.input for node in graph.node if node.op_type == kind] == [
            node.input for node in before.node if node.op_type == kind
        ]


def test_equal_plans_give_equal_files(quantized, dialect, tmp_path):
    emit(quantized.path, quantized.plan, dialect, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == quantized.int8[dialect].read_bytes()


def test_layers_that_the_plan_leaves_float_stay_as_they_are(quantized, dialect, tmp_path):
    linears = [
        msgspec.structs.replace(linear, quantization=None, fallback="a test wants it")
        if linear.name.endswith("fc2")
        else linear
        for linear in quantized.plan.linears
    ]
    plan = msgspec.structs.replace(quantized.plan, linears=tuple(linears))
    emit(quantized.path, plan, dialect, tmp_path / "mixed.onnx")
    with get_backend(dialect).open(tmp_path / "mixed.onnx", threads=1, settings={}) as session:
        kernels = check_kernels(session, plan.integer_layers())
        found = session.infer(quantized.images)
    assert kernels.float_linears == ("blocks.0.mlp.fc2", "blocks.1.mlp.fc2")
    assert kernels.integer_linears == len(quantized.layers) - 2
    with torch.inference_mode():
        expected = fake_quantized(quantized.model, plan)(torch.from_numpy(quantized.images)).numpy()
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


WEIGHT = np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)
GRAPHS = {
    "Gemm": ("[fc] y = Gemm(images, w, b)", {"w": WEIGHT, "b": WEIGHT[0]}),
    "Gemm, transposed": ("[fc] y = Gemm<transB = 1>(images, w, b)", {"w": WEIGHT.T.copy(), "b": WEIGHT[:1]}),
    "no bias": ("[fc] y = MatMul(images, w)", {"w": WEIGHT}),
    "a channel of zeros": ("[fc] y = MatMul(images, w)", {"w": WEIGHT * (np.arange(6) != 2).astype(np.float32)}),
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_other_forms_of_linear_layers(dialect, graph, write_graph, tmp_path):
    body, constants = GRAPHS[graph]
    path = write_graph(f"g (float[n, 8] images) => (float[n, 6] y) {{ {body} }}", constants)
    images = np.random.default_rng(2).normal(size=(16, 8)).astype(np.float32)
    plan = make_plan(path, calibrate(path, [images], total=1))
    emit(path, plan, dialect, tmp_path / "int8.onnx")
    expected = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"images": images})[0]
    with get_backend(dialect).open(tmp_path / "int8.onnx", threads=1, settings={}) as session:
        assert check_kernels(session, ["fc"]).integer_linears == 1
        found = session.infer(images)
    assert np.abs(found - expected).mean() < 0.05
    if graph == "a channel of zeros":
        assert (found[:, 2] == 0).all()


def test_a_plan_for_another_model_is_refused(quantized, dialect, tmp_path):
    plan = msgspec.structs.replace(quantized.plan, model_sha256="0" * 64)
    target = tmp_path / "model.onnx"
    target.write_bytes(b"before")
    with pytest.raises(BundleError, match="another model"):
        emit(quantized.path, plan, dialect, target)
    assert target.read_bytes() == b"before"


@pytest.mark.parametrize("change", [{"name": "nowhere"}, {"weight_scales": (1.0, 2.0)}])
def test_a_plan_that_was_tampered_with_is_refused(quantized, dialect, tmp_path, change):
    first = quantized.plan.linears[0]
    if "name" in change:
        first = msgspec.structs.replace(first, **change)
    else:
        first = msgspec.structs.replace(first, quantization=msgspec.structs.replace(first.quantization, **change))
    plan = msgspec.structs.replace(quantized.plan, linears=(first, *quantized.plan.linears[1:]))
    with pytest.raises(BundleError):
        emit(quantized.path, plan, dialect, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_there_is_no_other_dialect(quantized, dialect, tmp_path):
    with pytest.raises(InputError, match="no dialect 'klingon'") as caught:
        emit(quantized.path, quantized.plan, "klingon", tmp_path / "model.onnx")
    assert dialect in caught.value.remedy
