import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from edgevit.graph.passes.prune_tokens import PooledToken
from edgevit.quantization.arithmetic import dequantize, quantize_array, weight_scales
from edgevit.quantization.plan import LinearQuantization
from edgevit.quantization.rounding.gptq import DAMPING, TOKEN_WEIGHT, HessianObserver, gptq, quantize_weight

INPUTS, OUTPUTS = 100, 6  # more inputs than are rounded in one go


def correlated(seed, tokens=3000):
    random = np.random.default_rng(seed)
    return (random.normal(size=(tokens, 12)) @ random.normal(size=(12, INPUTS))).astype(np.float32), random.normal(
        size=(INPUTS, OUTPUTS)
    ).astype(np.float32)


def moments_of(values, scale, zero_point=100, token=None):
    quantization = LinearQuantization(
        activation_scale=float(np.float32(scale)), activation_zero_point=zero_point, weight_scales=(1.0,)
    )
    moments = HessianObserver(quantization, values.shape[-1], token)
    for image in np.array_split(values, 5):
        moments.update(image)
    return moments


def rounded(values, scale, zero_point=100):
    scale, zero = np.float32(scale), np.uint8(zero_point)
    return dequantize(quantize_array(values, scale, zero), scale, zero).astype(np.float64)


@given(st.integers(0, 1000), st.floats(0.01, 0.2))
def test_moments_are_those_of_the_quantized_input(seed, scale):
    values, _ = correlated(seed, tokens=200)
    moments = moments_of(values, scale)
    exact, quantized = moments.means()
    np.testing.assert_allclose(exact, values.mean(axis=0, dtype=np.float64), atol=1e-4)
    np.testing.assert_allclose(quantized, rounded(values, scale).mean(axis=0), atol=1e-4)
    expected = np.cov(rounded(values, scale), rowvar=False, bias=True)
    shrunk = expected * 200 / (200 + INPUTS)
    np.fill_diagonal(shrunk, np.diag(expected))
    np.testing.assert_allclose(moments.covariance(), shrunk, atol=1e-3)


def test_the_token_that_the_head_reads_counts_more_in_the_covariance_and_not_in_the_means():
    images = correlated(0, tokens=40 * 5)[0].reshape(40, 5, INPUTS)
    quantization = LinearQuantization(activation_scale=0.05, activation_zero_point=100, weight_scales=(1.0,))
    alike, moments = HessianObserver(quantization, INPUTS), HessianObserver(quantization, INPUTS, PooledToken(2, 5))
    for image in images:
        alike.update(image[None])
        moments.update(image[None])
    for mean, other in zip(moments.means(), alike.means(), strict=True):
        np.testing.assert_array_equal(mean, other)
    apart = rounded(images, 0.05) - rounded(images, 0.05).mean(axis=(0, 1))
    weights = np.array([1, 1, TOKEN_WEIGHT, 1, 1])
    expected = np.einsum("t,itk,itl->kl", weights, apart, apart) / (40 * weights.sum())
    np.testing.assert_allclose(np.diag(moments.covariance()), np.diag(expected), rtol=1e-3)
    np.testing.assert_allclose(moments.covariance() * 1.5, expected + np.diag(np.diag(expected)) / 2, atol=2e-2)


def test_of_many_inputs_half_the_products_are_added_up_to_the_same_covariance():
    inputs, random = 1030, np.random.default_rng(0)
    values = random.normal(size=(2, 5, inputs)).astype(np.float32)
    quantization = LinearQuantization(activation_scale=0.05, activation_zero_point=100, weight_scales=(1.0,))
    moments = HessianObserver(quantization, inputs, PooledToken(2, 5))
    for image in values:
        moments.update(image[None])
    seen = rounded(values, 0.05).reshape(-1, inputs)
    weights = np.tile([1, 1, TOKEN_WEIGHT, 1, 1], 2)
    apart = seen - seen.mean(axis=0)
    expected = apart.T @ (apart * weights[:, None]) / weights.sum()
    shrunk = expected * 10 / (10 + inputs)
    np.fill_diagonal(shrunk, np.diag(expected))
    np.testing.assert_allclose(moments.covariance(), shrunk, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, INPUTS), (1, 1, INPUTS), (1, 4, INPUTS)])
def test_an_input_without_that_token_among_others_counts_as_it_is(shape):
    values = np.random.default_rng(0).normal(size=(9, *shape)).astype(np.float32)
    quantization = LinearQuantization(activation_scale=0.05, activation_zero_point=100, weight_scales=(1.0,))
    alike, moments = HessianObserver(quantization, INPUTS), HessianObserver(quantization, INPUTS, PooledToken(0, 5))
    for image in values:
        alike.update(image)
        moments.update(image)
    np.testing.assert_array_equal(moments.covariance(), alike.covariance())


@pytest.mark.parametrize("seed", range(3))
def test_gptq_errs_less_on_correlated_inputs_than_rounding_to_nearest(seed):
    values, weight = correlated(seed)
    scales = weight_scales(weight) * 16  # coarse, as with fewer bits: that is where it counts
    covariance = np.cov(values, rowvar=False)
    integers = gptq(weight, scales, covariance)
    assert np.abs(integers).max() <= 127
    errors = [
        ((values @ (dequantize(each, scales, np.int8(0)) - weight)) ** 2).mean()
        for each in (integers, quantize_array(weight, scales, np.int8(0)))
    ]
    assert errors[0] < errors[1] / 2


def test_gptq_rounds_to_nearest_where_inputs_tell_nothing_of_each_other():
    _, weight = correlated(0)
    scales = weight_scales(weight)
    for covariance in (np.eye(INPUTS), np.zeros((INPUTS, INPUTS))):
        np.testing.assert_array_equal(gptq(weight, scales, covariance), quantize_array(weight, scales, np.int8(0)))


@given(st.integers(0, 1000), st.floats(0.05, 0.3))
def test_with_the_correction_the_rounded_layer_has_the_mean_of_the_float_one(seed, scale):
    values, weight = correlated(seed, tokens=300)
    made = quantize_weight(weight, moments_of(values, scale))
    outputs = rounded(values, scale) @ made.weight + made.correction
    np.testing.assert_allclose(outputs.mean(axis=0), (values.astype(np.float64) @ weight).mean(axis=0), atol=1e-3)


@given(st.integers(0, 1000))
def test_a_rounded_weight_lies_on_the_grid_that_emitters_put_it_on(seed):
    values, weight = correlated(seed, tokens=300)
    made = quantize_weight(weight, moments_of(values, 0.1))
    integers = quantize_array(made.weight, made.scales, np.int8(0))
    np.testing.assert_array_equal(dequantize(integers, made.scales, np.int8(0)), made.weight)


def test_few_tokens_are_not_taken_for_many():
    """One token for two inputs each: without shrinking, the covariance has no inverse and chance is fitted."""
    values, weight = correlated(0, tokens=INPUTS // 2)
    made = quantize_weight(weight, moments_of(values, 0.1))
    assert np.isfinite(made.weight).all()
    assert np.abs(made.weight - weight).max() < 2 * made.scales.max()


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 3), (64, 5), (65, 5), (200, 7)])
def test_rounds_as_the_paper_writes_it(inputs, outputs):
    """Algorithm 1 of Frantar et al., with the inverse that it names, by SciPy, one row at a time."""
    random = np.random.default_rng(inputs)
    seen = random.normal(size=(3 * inputs, inputs)) * random.lognormal(0, 1, inputs)
    covariance = seen.T @ seen / len(seen)
    weight = random.normal(size=(inputs, outputs)).astype(np.float32)
    scales = weight_scales(weight)
    order = np.argsort(-np.diag(covariance), kind="stable")
    damped = covariance[np.ix_(order, order)] + DAMPING * np.diag(covariance).mean() * np.eye(inputs)
    factor = scipy.linalg.cholesky(scipy.linalg.inv(damped), lower=False)
    left, expected = weight[order].astype(np.float64), np.empty((inputs, outputs), np.int8)
    for row in range(inputs):
        integer = np.clip(np.rint(left[row] / scales), -127, 127)
        left[row:] -= np.outer(factor[row, row:], (left[row] - integer * scales) / factor[row, row])
        expected[order[row]] = integer
    np.testing.assert_array_equal(gptq(weight, scales, covariance), expected)
