"""Accuracy against latency: where things lie, and what is drawn."""

import unicodedata
import xml.etree.ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgevit.plots import svg
from edgevit.plots.axes import nice_scale
from edgevit.plots.labels import extent
from edgevit.plots.tradeoff import PlottedVariant, draw_tradeoff, marker, tradeoff

SVG = "{http://www.w3.org/2000/svg}"
VARIANTS = (
    PlottedVariant("float32-a", "float32", 9.0, 91.0, 90.4, 91.6, p90_ms=11.0),
    PlottedVariant("int8-a", "int8", 4.0, 90.8, 90.2, 91.4, on_front=True, p90_ms=4.5),
    PlottedVariant("float32-b", "float32", 7.0, 91.0, 90.4, 91.6, on_front=True),
    PlottedVariant("fp16-b", "fp16", 6.0, 90.7, 90.1, 91.3),
)


def read(plot, width=880, height=400):
    return ET.fromstring(svg.standalone(plot, width, height))


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


@given(st.integers(1, 100_000))
def test_an_axis_of_whole_numbers_has_no_others(last):
    scale = nice_scale(1, max(2, last), 0, 100, ticks=8, whole=True)
    assert all(tick == int(tick) for tick in scale.ticks)


def test_one_point_is_no_plot():
    assert tradeoff(VARIANTS[:1], 880, 400) is None


def test_the_front_goes_through_what_nothing_beats():
    plot = tradeoff(VARIANTS, 880, 400)
    named = {point.variant.text: point.place for point in plot.points}
    fast, good = named["int8-a"], named["float32-b"]
    assert plot.front == [(fast.x, fast.y), (good.x, fast.y), (good.x, good.y)]
    assert fast.x < good.x
    assert good.y < fast.y


def test_budgets_of_a_line_are_joined_from_the_smallest_on():
    line = [each._replace(line="a") for each in VARIANTS[1:]]
    joined = [line[0]._replace(budget=0.8), line[1]._replace(budget=0.6, line="b"), line[2]]
    plot = tradeoff([VARIANTS[0], *joined, joined[0]._replace(budget=0.5, p50_ms=3.0)], 880, 400)
    places = [(point.place.x, point.place.y) for point in plot.points]
    assert [each.places for each in plot.lines] == [[places[4], places[1], places[3]]]  # one alone is no line
    drawn = read(draw_tradeoff(plot, "Top-1"))
    (found,) = [each for each in drawn.iter(f"{SVG}polyline") if each.get("class").startswith("budgets")]
    assert found.get("class") == "budgets int8"
    assert [tuple(map(float, each.split(","))) for each in found.get("points").split()] == [
        pytest.approx(place, abs=0.01) for place in plot.lines[0].places
    ]
    assert drawn.get("aria-label").endswith("lines join the token budgets of each engine")


def test_everything_is_drawn_where_it_lies():
    plot = tradeoff(VARIANTS, 880, 400)
    assert "Top-1" not in [each.text for each in read(draw_tradeoff(plot, "Top-1")).iter(f"{SVG}text")]
    drawn = read(draw_tradeoff(plot, "Top-1", titled=True))
    assert "Top-1" in [each.text for each in drawn.iter(f"{SVG}text")]
    names = {each.text: each for each in drawn.iter(f"{SVG}text") if each.get("class") == "name"}
    assert names.keys() == {variant.text for variant in VARIANTS}
    marks = [each for each in drawn.iter() if each.get("class", "").startswith("mark")]
    assert [each.get("class") for each in marks] == ["mark float32", "mark int8", "mark float32", "mark other"]
    for point, sign in zip(plot.points, marks, strict=True):
        if sign.tag == f"{SVG}circle":
            assert (float(sign.get("cx")), float(sign.get("cy"))) == (point.place.x, point.place.y)
    whiskers = [each for each in drawn.iter() if each.get("class", "").startswith("whisker")]
    assert len(whiskers) == 4 + 2  # of all accuracies, and of the two times that have a tail
    assert drawn.get("aria-label") == "Top-1 of each variant against its median latency"


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 100), st.text(max_size=30)), min_size=2, max_size=8))
@example([(1.0, 0.0, ""), (1.0, 2.2250738585072014e-308, "")])
def test_names_stay_in_the_plot_and_any_name_is_xml(drawn):
    variants = [PlottedVariant(text, "int8", time, rate, rate, rate) for time, rate, text in drawn]
    plot = tradeoff(variants, 880, 400)
    page = read(draw_tradeoff(plot, "Top-1"))
    assert len([each for each in page.iter(f"{SVG}text") if each.get("class") == "name"]) == len(variants)
    for point in plot.points:
        assert extent(point.label, point.variant.text).top > -50


@pytest.mark.parametrize(("precision", "tag"), [("float32", "circle"), ("int8", "circle"), ("fp8", "path")])
def test_a_precision_has_a_sign(precision, tag):
    assert ET.fromstring(marker(precision, 8, 8)).tag == tag


@given(st.text(), st.text())
def test_nothing_in_a_text_or_an_attribute_is_markup(words, label):
    plot = svg.plot([svg.text_element(words, 1, 2)], 10, 10, label)
    (said,) = list(read(plot).iter(f"{SVG}text"))
    kept = (letter.isprintable() or unicodedata.category(letter) == "Cf" for letter in words)
    expected = "".join(each if keep else "\N{REPLACEMENT CHARACTER}" for each, keep in zip(words, kept, strict=True))
    assert (said.text or "") == expected
