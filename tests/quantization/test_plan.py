import json

import msgspec
import numpy as np
import pytest
from onnx_files import calibrate, make_plan

from edgevit.errors import BundleError, DataError
from edgevit.files import sha256_of
from edgevit.graph.linears import find_linears, load_graph
from edgevit.quantization.plan import LinearPlan, QuantizationPlan


def test_every_layer_of_a_vit_is_planned(quantized):
    plan = quantized.plan
    assert plan.integer_layers() == tuple(quantized.layers)
    assert (plan.images, plan.source_sha256) == (12, sha256_of(quantized.path))
    weights = {layer.name: layer.weight for layer in find_linears(load_graph(quantized.path).graph)}
    for linear in plan.linears:
        statistics, chosen = quantized.table.inputs[linear.name], linear.quantization
        low, high = min(statistics.minimum, 0), max(statistics.maximum, 0)
        assert chosen.activation_scale == pytest.approx((high - low) / 255, rel=1e-6)
        assert chosen.activation_zero_point == round(-low / chosen.activation_scale)
        expected = np.abs(weights[linear.name]).max(axis=0) / np.float32(127)
        np.testing.assert_array_equal(np.array(chosen.weight_scales, dtype=np.float32), expected)


def test_a_symmetric_plan_is_signed_around_0(quantized):
    plan = make_plan(quantized.path, quantized.table, scheme="symmetric")
    assert plan.integer_layers() == tuple(quantized.layers)
    for linear, other in zip(plan.linears, quantized.plan.linears, strict=True):
        statistics, chosen = quantized.table.inputs[linear.name], linear.quantization
        largest = max(-statistics.minimum, statistics.maximum)
        assert chosen.activation_scale == pytest.approx(largest / 127, rel=1e-6)
        assert chosen.zero_point() == 0
        assert chosen.zero_point().dtype == np.int8
        assert other.quantization.zero_point().dtype == np.uint8
        assert chosen.weight_scales == other.quantization.weight_scales


def test_a_plan_comes_back_as_it_was(quantized, tmp_path):
    quantized.plan.save(tmp_path / "plan.json")
    assert QuantizationPlan.load(tmp_path / "plan.json") == quantized.plan
    assert json.loads((tmp_path / "plan.json").read_text())["linears"][0]["name"] == quantized.layers[0]


def test_scales_are_exact_float32(quantized):
    scales = quantized.plan.linears[0].quantization.weight_scales
    assert all(float(np.float32(scale)) == scale for scale in scales)


def test_a_layer_whose_input_is_always_zero_stays_float(write_graph):
    path = write_graph(
        "g (float[n, 4] images) => (float[n, 4] y)"
        "{ [first] a = MatMul(images, w) r = Relu(a) [second] y = MatMul(r, w) }",
        {"w": np.eye(4, dtype=np.float32)},
    )
    table = calibrate(path, [-np.ones((3, 4), dtype=np.float32)], total=1)
    plan = make_plan(path, table)
    assert plan.integer_layers() == ("first",)
    assert plan.linears[1].fallback == "its input stayed within 0 of 0 on every image"
    first = plan.linears[0].quantization  # constant at -1: widened to [-1, 0]
    assert (first.activation_scale, first.activation_zero_point) == (np.float32(1 / 255), 255)


def test_tables_and_plans_of_other_models_are_refused(quantized, write_graph):
    other = write_graph("g (float[n, 4] x) => (float[n, 4] y) { y = MatMul(x, w) }", {"w": np.eye(4, dtype=np.float32)})
    with pytest.raises(BundleError, match="calibration table lacks"):
        make_plan(other, quantized.table)
    with pytest.raises(BundleError, match="plan belongs to another model"):
        quantized.plan.check_source(sha256_of(other))


def test_a_table_without_a_layer_or_images_is_refused(quantized):
    inputs = dict(quantized.table.inputs)
    del inputs["head"]
    with pytest.raises(BundleError, match="lacks 'head'"):
        make_plan(quantized.path, msgspec.structs.replace(quantized.table, inputs=inputs))
    with pytest.raises(DataError, match="no images"):
        make_plan(quantized.path, msgspec.structs.replace(quantized.table, images=0))


@pytest.mark.parametrize(
    "change",
    [
        {"activation_scale": 0.0},
        {"activation_scale": -1.0},
        {"activation_scale": 1e39},  # infinite in float32
        {"activation_scale": 1e-50},  # zero in float32
        {"activation_zero_point": 256},
        {"activation_zero_point": -1},
        {"activation_zero_point": 1, "activation_type": "int8"},
        {"activation_type": "int4"},
        {"weight_scales": [0.0] * 96},
        {"weight_scales": "abc"},
        {"surprise": 1},
    ],
)
def test_wrong_numbers_are_refused(quantized, tmp_path, change):
    content = msgspec.to_builtins(quantized.plan)
    content["linears"][0]["quantization"].update(change)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError):
        QuantizationPlan.load(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1", b'{"schema_version": 1}', b"\xff\xfe", None])
def test_what_is_no_plan_is_refused(tmp_path, content):
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match="no quantization plan"):
        QuantizationPlan.load(path)


def test_another_version_is_refused(quantized, tmp_path):
    msgspec.structs.replace(quantized.plan, schema_version=99).save(tmp_path / "plan.json")
    with pytest.raises(BundleError, match="version 99"):
        QuantizationPlan.load(tmp_path / "plan.json")


def test_a_layer_is_either_quantized_or_has_a_reason():
    with pytest.raises(BundleError, match="either quantize 'fc' or say why not"):
        LinearPlan(name="fc", quantization=None)
