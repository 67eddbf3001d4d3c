"""Figures as people read them."""

import pytest
from class_names import ORDINARY
from hypothesis import given
from hypothesis import strategies as st

from edgevit.report import formats

PLAIN = str.maketrans("\N{NO-BREAK SPACE}\N{EN DASH}\N{MINUS SIGN}\N{MULTIPLICATION SIGN}", " --x")


def plain(text):
    return text.translate(PLAIN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.percent(0.91874), "91.87 %"),
        (formats.percent(0.918, 1000), "91.8 %"),
        (formats.percent(0.99998, 50_000), "99.998 %"),
        (formats.percent(1.0, 50_000), "100.00 %"),
        (formats.percent(1 + 1e-7, 1000), "100.0 %"),
        (formats.percent(None), "-"),
        (formats.percent_interval((0.9, 0.92)), "90.00-92.00"),
        (formats.percent_interval((0.99985, 0.999998), 50_000), "99.98-99.9998"),
        (formats.percent_interval((0.9, 1.0)), "90.00-100.00"),
        (formats.percent_interval(None), "-"),
        (formats.points(-0.0012), "-0.12"),
        (formats.points(0.0012), "+0.12"),
        (formats.points(-0.00001), "0.00"),
        (formats.points(None), "-"),
        (formats.milliseconds(0.71), "0.710 ms"),
        (formats.milliseconds(12.34), "12.3 ms"),
        (formats.milliseconds(1234.5), "1,234 ms"),
        (formats.milliseconds(None), "-"),
        (formats.speed_up(1.8345), "1.83x"),
        (formats.ratio_interval((1.79, 1.861)), "1.79-1.86"),
        (formats.megabytes(1_380_000), "1.38 MB"),
        (formats.megabytes(22_900_000), "22.9 MB"),
        (formats.mebibytes(93.4), "93 MiB"),
        (formats.p_value(0.234), "p = 0.23"),
        (formats.p_value(1e-9), "p < 0.001"),
        (formats.p_value(1.0), "p = 1"),
        (formats.nats(0.0), "0"),
        (formats.nats(0.00312), "0.0031"),
        (formats.nats(4e-6), "4e-06"),
        (formats.nats(None), "-"),
        (formats.decibels(22.18), "22.2 dB"),
    ],
)
def test_figures(text, expected):
    assert plain(text) == expected


@given(st.floats(0.0001, 1e9))
def test_three_digits_are_the_number(value):
    text = formats.three_digits(value).replace(",", "")
    assert float(text) == pytest.approx(value, rel=0.0051, abs=0.00051)
    assert "e" not in text


@given(st.text())
def test_printable_is_one_line_without_tricks(text):
    line = formats.printable(text)
    assert len(line) <= 200
    assert len(line.splitlines()) <= 1
    assert not any(mark in line for mark in "\x1b\r\n\u202e\u2066\ufeff\u2028\x85")


@pytest.mark.parametrize("name", ORDINARY.values(), ids=ORDINARY)
def test_printable_keeps_names_in_any_script(name):
    assert formats.printable(name) == name


def test_printable_cuts_what_is_too_long():
    assert formats.printable("x" * 50, limit=10) == "x" * 9 + "…"
