"""Every dialect: the same arithmetic as a fake-quantized torch model, in a file that is whole and small."""

import copy

import msgspec
import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
import torch
from onnx_files import calibrate, emit, emit_float32, make_plan, read

from edgevit.backends import get_backend
from edgevit.errors import BundleError, InputError
from edgevit.graph.node_facts import PRODUCTS, noted_products
from edgevit.graph.saving import serialize
from edgevit.quantization.emit import DIALECTS, dialect_called, scheme_of, tensorrt
from edgevit.quantization.emit import emit as write
from edgevit.quantization.kernel_check import check_kernels
from edgevit.quantization.ptq import PtqModel

pytestmark = pytest.mark.parametrize("dialect", DIALECTS)

#: The engines that can run a dialect's file here, and whether they must do so in integers.
ENGINES = {
    "onnxruntime": {"onnxruntime": True},
    "openvino": {"openvino": True},
    "portable": {"onnxruntime": True, "openvino": True},
    "tensorrt": {"onnxruntime": False},
    "tensorrt-legacy": {"onnxruntime": False},
}


def run(dialect, path, images):
    """Return the answers of all engines for the dialect, which must be alike."""
    found = []
    for name in ENGINES[dialect]:
        with get_backend(name).open(path, threads=1, settings={}) as session:
            found.append(session.infer(images))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=0.05 * np.abs(found[0]).max())
    return found[0]


def checked(dialect, path, layers):
    """Return the kernels of the first engine for the dialect, after a check of those that must run in integers."""
    found = []
    for name, integer in ENGINES[dialect].items():
        with get_backend(name).open(path, threads=1, settings={}) as session:
            found.append(check_kernels(session, layers if integer else ()))
    return found[0]


def fake_quantized(model, plan, dialect):
    """Return a copy of ``model`` whose planned Linear layers quantize and dequantize, by torch's own operators."""
    model = copy.deepcopy(model)
    kind = torch.float16 if dialect == "tensorrt" else torch.float32  # of scales
    for linear in plan.linears:
        module, chosen = model.get_submodule(linear.name), linear.quantization
        if chosen is None:
            continue
        scales = torch.tensor(chosen.weight_scales).to(kind).float()
        scale = torch.tensor(chosen.activation_scale).to(kind).item()
        zeros = torch.zeros(len(scales), dtype=torch.int32)
        low, high = (0, 255) if chosen.activation_type == "uint8" else (-128, 127)
        module.weight.data = torch.fake_quantize_per_channel_affine(module.weight.data, scales, zeros, 0, -127, 127)
        module.register_forward_pre_hook(
            lambda _, inputs, scale=scale, zero=chosen.activation_zero_point, low=low, high=high: (
                torch.fake_quantize_per_tensor_affine(inputs[0], scale, zero, low, high),
            )
        )
    return model


@pytest.mark.parametrize("batch", [1, 2, 12])
def test_logits_are_those_of_the_simulation(quantized, dialect, batch):
    images = quantized.images[:batch]
    with torch.inference_mode():
        exact = quantized.model(torch.from_numpy(images)).numpy()
        expected = fake_quantized(quantized.model, quantized.plans[dialect], dialect)(torch.from_numpy(images)).numpy()
    found = run(dialect, quantized.int8[dialect], images)
    error = np.abs(expected - exact).mean()
    assert error > 5e-4  # quantization does something
    if dialect == "tensorrt":  # float16 alone does as much; see the next test
        assert np.abs(found - expected).mean() < 0.02 * np.abs(exact).mean()
    else:  # a sum that lies on the edge between two integers may be rounded either way; all else must be alike
        assert np.abs(found - expected).mean() < 0.05 * error


def test_without_float16_types_the_logits_of_tensorrt_are_those_of_the_simulation(
    quantized, dialect, tmp_path, monkeypatch
):
    if dialect != "tensorrt":
        pytest.skip("has float32 types")
    monkeypatch.setattr(tensorrt.ToFloat16, "call", lambda _, model: ir.passes.PassResult(model, modified=False))
    emit(quantized.path, quantized.plans[dialect], dialect, tmp_path / "model.onnx")
    with torch.inference_mode():
        exact = quantized.model(torch.from_numpy(quantized.images)).numpy()
        expected = fake_quantized(quantized.model, quantized.plans[dialect], dialect)(
            torch.from_numpy(quantized.images)
        ).numpy()
    found = run(dialect, tmp_path / "model.onnx", quantized.images)
    assert np.abs(found - expected).mean() < 0.05 * np.abs(expected - exact).mean()


def test_the_file_is_well_formed_and_holds_weights_as_integers(quantized, dialect):
    path = quantized.int8[dialect]
    onnx.checker.check_model(str(path))
    model = onnx.load(path)
    before = onnx.load(quantized.path)
    constants = {constant.name: constant for constant in model.graph.initializer}
    for name in quantized.layers:
        parts = (
            [f"{name}.split_{index}" for index in range(3)]
            if name.endswith("qkv") and dialect != "portable"
            else [name]
        )
        if f"{name}.weight.int8" in constants:  # onnxruntime takes the three parts together, with attention
            assert dialect in ("onnxruntime", "portable") or not name.endswith("qkv")
            parts = [name]
        assert all(constants[f"{part}.weight.int8"].data_type == onnx.TensorProto.INT8 for part in parts)
        assert f"{name}.weight" not in constants
        for parameter in ("scale", "zero_point"):
            typed = f"{name}.input.{parameter}" + ".float16" * (dialect == "tensorrt" and parameter == "scale")
            assert list(constants[typed].dims) == []
    metadata = {each.key: each.value for each in model.metadata_props}
    products = noted_products(metadata.pop(PRODUCTS))
    assert {product.layer for product in products} == set(quantized.layers)
    expected = {each.key: each.value for each in before.metadata_props if each.key != PRODUCTS}
    assert metadata == expected
    assert not any(node.metadata_props for node in model.graph.node if "edgevit" in str(node.metadata_props))
    assert [value.name for value in model.graph.input] == ["images"]
    assert model.graph.input == before.graph.input
    assert model.graph.output == before.graph.output


def test_only_the_inputs_of_linear_layers_are_quantized(quantized, dialect):
    graph = onnx.load(quantized.int8[dialect]).graph
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == len(quantized.layers)
    given = {node.output[0]: node.op_type for node in graph.node}
    for node in graph.node:
        if node.op_type in ("LayerNormalization", "Gelu", "Erf", "Softmax", "Conv", "MultiHeadAttention"):
            assert not {given.get(name) for name in node.input} & {"QuantizeLinear", "DequantizeLinear"}


def test_equal_plans_give_equal_files(quantized, dialect, tmp_path):
    emit(quantized.path, quantized.plans[dialect], dialect, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == quantized.int8[dialect].read_bytes()


def test_layers_that_the_plan_leaves_float_stay_as_they_are(quantized, dialect, tmp_path):
    linears = [
        msgspec.structs.replace(linear, quantization=None, fallback="a test wants it")
        if linear.name.endswith("fc2")
        else linear
        for linear in quantized.plans[dialect].linears
    ]
    plan = msgspec.structs.replace(quantized.plans[dialect], linears=tuple(linears))
    emit(quantized.path, plan, dialect, tmp_path / "mixed.onnx")
    kernels = checked(dialect, tmp_path / "mixed.onnx", plan.integer_layers())
    found = run(dialect, tmp_path / "mixed.onnx", quantized.images)
    if any(ENGINES[dialect].values()):
        assert kernels.float_linears == ("blocks.0.mlp.fc2", "blocks.1.mlp.fc2")
        assert kernels.integer_linears == len(quantized.layers) - 2
    with torch.inference_mode():
        expected = fake_quantized(quantized.model, plan, dialect)(torch.from_numpy(quantized.images)).numpy()
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
    plan = make_plan(path, calibrate(path, [images], total=1), scheme=scheme_of(dialect))
    emit(path, plan, dialect, tmp_path / "int8.onnx")
    expected = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"images": images})[0]
    checked(dialect, tmp_path / "int8.onnx", ["fc"])
    found = run(dialect, tmp_path / "int8.onnx", images)
    assert np.abs(found - expected).mean() < 0.05
    if graph == "a channel of zeros":
        assert (found[:, 2] == 0).all()


@pytest.mark.parametrize("change", [{"name": "nowhere"}, {"weight_scales": (1.0, 2.0)}])
def test_a_plan_that_was_tampered_with_is_refused(quantized, dialect, tmp_path, change):
    first = quantized.plans[dialect].linears[0]
    if "name" in change:
        first = msgspec.structs.replace(first, **change)
    else:
        first = msgspec.structs.replace(first, quantization=msgspec.structs.replace(first.quantization, **change))
    plan = msgspec.structs.replace(quantized.plans[dialect], linears=(first, *quantized.plans[dialect].linears[1:]))
    with pytest.raises(BundleError):
        emit(quantized.path, plan, dialect, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_there_is_no_other_dialect(quantized, dialect, tmp_path):
    with pytest.raises(InputError, match="no dialect 'klingon'") as caught:
        emit(quantized.path, quantized.plan, "klingon", tmp_path / "model.onnx")
    assert dialect in caught.value.remedy


def test_a_plan_with_activations_that_the_dialect_cannot_take_is_refused(quantized, dialect, tmp_path):
    other = "asymmetric" if scheme_of(dialect) == "symmetric" else "symmetric"
    plan = make_plan(quantized.path, quantized.table, scheme=other)
    if other == "asymmetric":
        with pytest.raises(BundleError, match=r"'blocks\.0\.attn\.qkv' as uint8, not int8"):
            emit(quantized.path, plan, dialect, tmp_path / "model.onnx")
        assert not list(tmp_path.iterdir())
    else:  # an engine that takes both runs both in integers
        emit(quantized.path, plan, dialect, tmp_path / "model.onnx")
        assert checked(dialect, tmp_path / "model.onnx", plan.integer_layers()).integer_linears == len(quantized.layers)


def test_seven_bit_weights_stay_within_seven_bits(quantized, dialect, tmp_path):
    emit(quantized.path, quantized.plans[dialect], dialect, tmp_path / "model.onnx", weight_bits=7)
    before, after = (
        {constant.name: onnx.numpy_helper.to_array(constant) for constant in onnx.load(path).graph.initializer}
        for path in (quantized.int8[dialect], tmp_path / "model.onnx")
    )
    names = [name for name in after if name.endswith(".weight.int8")]
    assert max(np.abs(after[name].astype(int)).max() for name in names) == 63
    assert max(np.abs(before[name].astype(int)).max() for name in names) == 127
    with torch.inference_mode():
        exact = quantized.model(torch.from_numpy(quantized.images)).numpy()
    eight, seven = (
        np.abs(run(dialect, path, quantized.images) - exact).mean()
        for path in (quantized.int8[dialect], tmp_path / "model.onnx")
    )
    assert seven < 2 * eight  # twice the step for weights, the same for activations


def test_float32_for_an_engine_answers_as_the_exported_file(quantized, dialect, tmp_path):
    if dialect == "portable":
        pytest.skip("has no form of its own for float32")
    emit_float32(quantized.path, dialect, tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    for batch in (1, 12):
        images = quantized.images[:batch]
        expected = run(dialect, quantized.path, images)
        np.testing.assert_allclose(run(dialect, tmp_path / "model.onnx", images), expected, atol=1e-5, rtol=1e-5)
    assert checked(dialect, tmp_path / "model.onnx", ()).float_linears == tuple(quantized.layers)


@pytest.mark.parametrize("attention", ["float", "quantized"])
def test_the_optimized_model_stays_as_it_is(quantized, dialect, attention, tmp_path):
    """Other dialects are written from it afterwards: not even the types of its values may change."""
    model = read(quantized.path)
    before = serialize(model)
    if attention == "float" or dialect_called(dialect).emit_attention:
        write(PtqModel(model, quantized.plans[dialect]), dialect, tmp_path / "int8.onnx", attention=attention)
    assert serialize(model) == before
