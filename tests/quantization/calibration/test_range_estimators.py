"""Ranges that are read off a histogram, beside what numpy and onnxruntime find."""

import numpy as np
import pytest
from onnxruntime.quantization.calibrate import HistogramCollector

from edgevit.quantization.arithmetic import activation_parameters, dequantize, quantize_array, symmetric_parameters
from edgevit.quantization.calibration import range_estimators
from edgevit.quantization.calibration.calibration_table import TensorStatistics
from edgevit.quantization.calibration.histogram import Histogram, StreamingHistogram
from edgevit.quantization.calibration.observers import InputObserver
from edgevit.recipes import Percentile

RULES = {"asymmetric": activation_parameters, "symmetric": symmetric_parameters}


def drawn(kind):
    random = np.random.default_rng(1)
    values = random.normal(size=(64, 1000))
    if kind == "outliers":
        values[:, :2] *= 30
    if kind == "gelu":
        values = np.maximum(2 * values, 0) - 0.17 * np.exp(-np.abs(values))
    if kind == "shifted":
        values = 0.5 * values + 4
    return values.astype(np.float32)


@pytest.fixture(params=["normal", "outliers", "gelu", "shifted"])
def values(request):
    return drawn(request.param)


@pytest.fixture
def histogram(values):
    return histogram_of(values)


def histogram_of(values):
    streaming = StreamingHistogram()
    for image in values:
        streaming.update(image)
    return streaming.histogram()


@pytest.mark.parametrize("percent", [90, 99, 99.9, 100])
def test_percentiles_are_numpys_to_a_bin(values, histogram, percent):
    cut = (1 - percent / 100) / 2
    found = range_estimators.percentile(histogram, percent, "asymmetric")
    exact = np.quantile(values, [cut, 1 - cut], method="inverted_cdf")
    np.testing.assert_allclose(found, exact, atol=1.001 * histogram.width)
    low, high = range_estimators.percentile(histogram, percent, "symmetric")
    assert low == -high
    exact = np.quantile(np.abs(values), percent / 100, method="inverted_cdf")
    assert high == pytest.approx(exact, abs=1.001 * histogram.width)


def collector(method):
    """Return onnxruntime's calibrator with as many bins and levels as ours."""
    return HistogramCollector(method, False, num_bins=2048, num_quantized_bins=255, percentile=99.87, scenario="same")


def test_percentiles_are_onnxruntimes_to_a_bin_of_each(values, histogram):
    theirs = collector("percentile")
    theirs.collect({"x": list(values)})
    width = np.diff(theirs.histogram_dict["x"][1])[0]
    low, high, *_ = theirs.compute_percentile()["x"]
    found = range_estimators.percentile(histogram, 99.87, "asymmetric")
    np.testing.assert_allclose(found, (low, high), atol=1.001 * (width + histogram.width))


@pytest.mark.parametrize("decay", [10, 20, 40, 60])
def test_entropy_is_onnxruntimes_to_a_bin_at_each_end(decay):
    """On values below 0 in every bin; elsewhere onnxruntime forgets the bins that do not fill a level."""
    counts = (1e9 * np.exp(-np.arange(1000, 0, -1) / decay)).astype(np.int64) + 1000
    found = range_estimators.entropy(Histogram(-500.0, 0.5, counts))
    around, edges = np.concatenate([counts, np.zeros_like(counts)]), np.arange(-500, 500.5, 0.5)
    theirs = collector("entropy").get_entropy_threshold((around, edges, edges[0], edges[-1]), 255)
    np.testing.assert_allclose(found, theirs, atol=1.001)
    assert -found[0] < 400


def test_entropy_clips_outliers_and_keeps_what_is_even():
    random = np.random.default_rng(0)
    even = random.uniform(-3, 3, size=(8, 4000)).astype(np.float32)
    assert range_estimators.entropy(histogram_of(even))[1] == pytest.approx(3, abs=0.01)
    even[0, 0] = 40
    assert range_estimators.entropy(histogram_of(even))[1] < 10


def test_entropy_of_fewer_bins_than_levels_is_the_whole_range():
    found = histogram_of(np.array([[1, 2, 3]], dtype=np.float32) * 2.0**-3)
    found = Histogram(found.low, 2.0**-3, np.ones(3, dtype=np.int64))
    assert range_estimators.entropy(found)[1] >= 3 * 2.0**-3


def squared_error(values, low, high, scheme):
    scale, zero_point = RULES[scheme](low, high)
    return ((dequantize(quantize_array(values, scale, zero_point), scale, zero_point) - values) ** 2).mean(
        dtype=np.float64
    )


@pytest.mark.parametrize("scheme", list(RULES))
def test_the_mse_range_errs_least_of_many_on_all_values_at_once(values, histogram, scheme):
    found = range_estimators.mean_squared_error(histogram, scheme)
    shares = np.linspace(0.1, 1, 30)
    low, high = min(values.min(), 0), max(values.max(), 0)
    lows = np.unique(shares * low) if scheme == "asymmetric" else [0.0]
    highs = np.unique(shares * (high if scheme == "asymmetric" else np.abs(values).max()))
    best = min(squared_error(values, a, b, scheme) for a in lows for b in highs)
    assert squared_error(values, *found, scheme) <= 1.03 * best


def test_nothing_that_was_not_seen_is_in_a_range(values):
    observer = InputObserver(values.shape[1])
    for image in values:
        observer.update(image[None])
    statistics = observer.statistics()
    for observed in ("minmax", "average-minmax", "moving-average", "percentile", Percentile(95), "entropy", "mse"):
        for scheme in RULES:
            low, high = statistics.range(observed, scheme)
            assert statistics.minimum <= low < high <= statistics.maximum
    assert statistics.range("percentile") == statistics.range(Percentile(99.99))


def test_a_range_of_nothing_is_widened_to_all():
    observer = InputObserver(1000)
    rows = np.zeros((10, 1000), dtype=np.float32)
    rows[3, 3] = 4
    observer.update(rows)
    assert observer.statistics().range(Percentile(99), "symmetric") == (0, 4)
    assert TensorStatistics.predicted(-1, 2).range("mse") == (-1, 2)
