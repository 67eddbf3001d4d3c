"""The plot of a report's variants."""

import pytest

from edgevit.plots.labels import extent
from edgevit.report.data import report_data
from edgevit.report.plot import by_name, by_number, scatter


def test_faster_is_left_and_better_is_up(sample):
    plot = scatter(report_data(sample.FULL)["variants"], "top1", 880, 400, by_name)
    named = {point.variant.text: point.place for point in plot.points}
    assert named["int8-openvino"].x < named["int8-onnxruntime"].x < named["float32-openvino"].x
    assert named["float32-openvino"].y < named["int8-openvino"].y
    for place in named.values():
        assert place.high < place.y < place.low
        assert 0 < place.x < plot.width
        assert 0 < place.y < plot.height


@pytest.mark.parametrize(("width", "caption"), [(880, by_name), (360, by_number)])
@pytest.mark.parametrize("name", ["FULL", "TROUBLED", "MERGED"])
def test_captions_do_not_cover_each_other(sample, name, width, caption):
    plot = scatter(report_data(getattr(sample, name))["variants"], "top1", width, 380, caption)
    extents = [extent(point.label, point.variant.text) for point in plot.points]
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


def test_budgets_of_one_engine_are_joined_and_written_beside_their_points(sample):
    plot = scatter(report_data(sample.MERGED)["variants"], "top1", 880, 400, by_name)
    points = {(point.variant.line, point.variant.budget): point for point in plot.points}
    wanted = [("int8-onnxruntime", (0.7, 1.0)), ("int8-openvino", (0.6, 0.8, 1.0))]
    assert sorted(line.places for line in plot.lines) == sorted(
        [(points[name, budget].place.x, points[name, budget].place.y) for budget in budgets] for name, budgets in wanted
    )
    for name, budgets in wanted:
        assert points[name, 1.0].variant.text == name
        assert [points[name, each].variant.text for each in budgets[:-1]] == [f"{each:g}" for each in budgets[:-1]]
    assert {point.variant.precision for point in plot.points} == {"float32", "int8"}


def test_without_the_variant_with_all_tokens_budgets_have_names(sample):
    merged = [each for each in sample.MERGED.variants if each.token_merging or each.precision == "float32"]
    plot = scatter(report_data(sample.manifest(*merged))["variants"], "top1", 880, 400, by_name)
    texts = {point.variant.text for point in plot.points}
    assert {"int8-openvino-tokens60", "int8-openvino-tokens80", "int8-onnxruntime-tokens70"} < texts
    assert [len(line.places) for line in plot.lines] == [2]


@pytest.mark.parametrize("name", ["FULL", "TROUBLED"])
def test_without_budgets_nothing_is_joined(sample, name):
    assert scatter(report_data(getattr(sample, name))["variants"], "top1", 880, 400, by_name).lines == []


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
