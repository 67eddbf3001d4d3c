import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx.reference import ReferenceEvaluator

from edgevit.quantization.arithmetic import (
    activation_parameters,
    dequantize,
    fake_quantize,
    quantize_array,
    weight_scales,
)

VALUES = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
ROUND_TRIP = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 20]> g (float[n] x, float s, uint8 z) => (uint8[n] q, float[n] y)'
    "{ q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }"
)
PER_CHANNEL = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 20]> g (float[k, n] x, float[n] s, int8[n] z) => (int8[k, n] q, float[k, n] y)'
    "{ q = QuantizeLinear<axis = 1>(x, s, z)  y = DequantizeLinear<axis = 1>(q, s, z) }"
)


def by_onnxruntime(model):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def by_reference(model):
    evaluator = ReferenceEvaluator(model)
    return lambda inputs: evaluator.run(None, inputs)


@pytest.mark.parametrize("oracle", [by_onnxruntime, by_reference])
def test_activations_are_rounded_as_onnx_does(oracle):
    run = oracle(ROUND_TRIP)

    @given(
        arrays(np.float32, 33, elements=VALUES),
        st.floats(2**-10, 100, width=32),
        st.integers(0, 255),
    )
    def check(values, scale, zero_point):
        scale, zero_point = np.float32(scale), np.uint8(zero_point)
        stored, restored = run({"x": values, "s": np.array(scale), "z": np.array(zero_point)})
        ours = quantize_array(values, scale, zero_point)
        assert ours.dtype == np.uint8
        np.testing.assert_array_equal(ours, stored)
        np.testing.assert_array_equal(dequantize(ours, scale, zero_point), restored)

    check()


@pytest.mark.parametrize("oracle", [by_onnxruntime, by_reference])
def test_weights_are_rounded_as_onnx_does(oracle):
    run = oracle(PER_CHANNEL)

    @given(arrays(np.float32, (7, 3), elements=VALUES))
    def check(weight):
        scales = weight_scales(weight)
        stored, restored = run({"x": weight, "s": scales, "z": np.zeros(3, dtype=np.int8)})
        ours = quantize_array(weight, scales, np.int8(0))
        np.testing.assert_array_equal(ours, stored)
        np.testing.assert_array_equal(dequantize(ours, scales, np.int8(0)), restored)

    check()


def test_halves_go_to_the_even_neighbour():
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5], dtype=np.float32)
    assert quantize_array(values, np.float32(1), np.int8(0)).tolist() == [0, 2, 2, 0, -2]


@given(VALUES, VALUES)
def test_a_range_is_covered_without_clipping_and_zero_is_exact(one, other):
    low, high = min(one, other), max(one, other)
    parameters = activation_parameters(low, high)
    if parameters is None:
        assert high - low < 1e-35
        return
    scale, zero_point = parameters
    ends = np.array([low, high, 0], dtype=np.float32)
    restored = dequantize(quantize_array(ends, scale, zero_point), scale, zero_point)
    assert restored[2] == 0
    # Rounding the zero point shifts the range by half a step at most; then the ends are rounded.
    assert np.abs(restored - ends).max() <= scale * 1.001


@pytest.mark.parametrize(("low", "high", "expected"), [(1, 3, (0, 3)), (-3, -1, (-3, 0)), (2, 2, (0, 2))])
def test_a_range_without_zero_is_widened_to_hold_it(low, high, expected):
    scale, zero_point = activation_parameters(low, high)
    restored = dequantize(np.array([0, 255], dtype=np.uint8), scale, zero_point)
    np.testing.assert_allclose(restored, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1e-44), (-1e-40, 1e-40)])
def test_an_empty_range_has_no_parameters(low, high):
    assert activation_parameters(low, high) is None


@given(arrays(np.float32, (5, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_the_largest_weight_of_each_column_is_127(weight):
    scales = weight_scales(weight)
    stored = quantize_array(weight, scales, np.int8(0))
    assert scales.dtype == np.float32
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    for column, scale in enumerate(scales):
        largest = np.abs(stored[:, column].astype(int)).max()
        assert largest == (0 if scale == 1 and np.abs(weight[:, column]).max() < 1 else 127)


def test_a_column_of_zeros_stays_zero():
    weight = np.array([[0, 1e-44, 2], [0, 0, -1]], dtype=np.float32)
    scales = weight_scales(weight)
    assert scales[:2].tolist() == [1, 1]
    assert quantize_array(weight, scales, np.int8(0)).tolist() == [[0, 0, 127], [0, 0, -64]]


@given(
    arrays(np.float32, st.integers(0, 40), elements=VALUES),
    st.floats(2**-10, 100, width=32),
    st.one_of(st.integers(0, 255).map(np.uint8), st.just(np.int8(0))),
)
def test_fake_quantization_is_there_and_back(values, scale, zero_point):
    scale = np.float32(scale)
    there = quantize_array(values, scale, zero_point)
    assert np.array_equal(fake_quantize(values, scale, zero_point), dequantize(there, scale, zero_point))
