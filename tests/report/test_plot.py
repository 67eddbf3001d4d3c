"""Where things lie in the plot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.report.data import report_data
from edgevit.report.plot import _extent, by_name, by_number, nice_scale, scatter


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(3, 10))
def test_an_axis_covers_its_values_with_a_few_round_marks(low, span, ticks):
    high = low + span
    scale = nice_scale(low, high, 50, 800, ticks=ticks)
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert scale.low <= low + slack
    assert scale.high >= high - slack
    assert 2 <= len(scale.ticks) <= ticks + 3
    assert list(scale.ticks) == sorted(set(scale.ticks))
    assert scale.at(scale.low) == 50
    assert scale.at(scale.high) == 800


@pytest.mark.parametrize("value", [0.0, 1.0, 100.0])
def test_an_axis_of_one_value_is_an_axis(value):
    scale = nice_scale(value, value, 0, 100, ticks=5)
    assert scale.low < scale.high
    assert scale.low <= value <= scale.high


def test_faster_is_left_and_better_is_up(sample):
    plot = scatter(report_data(sample.FULL)["variants"], "top1", 880, 400, by_name)
    named = {point.text: point for point in plot.points}
    assert named["int8-openvino"].x < named["int8-onnxruntime"].x < named["float32-openvino"].x
    assert named["float32-openvino"].y < named["int8-openvino"].y
    for point in plot.points:
        assert point.y_high < point.y < point.y_low
        assert 0 < point.x < plot.width
        assert 0 < point.y < plot.height


@pytest.mark.parametrize(("width", "caption"), [(880, by_name), (360, by_number)])
@pytest.mark.parametrize("name", ["FULL", "TROUBLED"])
def test_captions_do_not_cover_each_other(sample, name, width, caption):
    plot = scatter(report_data(getattr(sample, name))["variants"], "top1", width, 380, caption)
    extents = [_extent(point.label, point.text) for point in plot.points]
    assert not any(a.common(b) for index, a in enumerate(extents) for b in extents[:index])


def test_the_front_is_what_nothing_beats(sample):
    data = report_data(sample.TROUBLED)
    assert {entry["name"] for entry in data["variants"] if entry["on_front"]} == {
        "int8-onnxruntime",
        "int8-noisy",
        "float32-onnxruntime",
    }
    plot = scatter(data["variants"], "top1", 880, 400, by_name)
    assert plot.front == sorted(plot.front, key=lambda corner: corner[0])
    assert len(plot.front) == 5  # three points and the corners between them


def test_one_point_is_no_plot(sample):
    data = report_data(sample.manifest(sample.FULL.variants[0], sample.TROUBLED.variants[-1]))
    assert scatter(data["variants"], "top1", 880, 400, by_name) is None


def test_without_labels_agreement_is_plotted(sample):
    unlabelled = sample.accuracy(top1=None, top1_ci95=None, top5=None, delta_top1=None, mcnemar_p=None)
    variants = [
        sample.variant(name, "int8", "o", accuracy=unlabelled, latency=sample.latency(p50))
        for name, p50 in (("a", 1), ("b", 2))
    ]
    data = report_data(sample.manifest(*variants))
    assert data["accuracy_axis"] == "agreement"
    assert scatter(data["variants"], "agreement", 880, 400, by_name) is not None
