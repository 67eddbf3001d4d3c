"""The table of variants at the widths that terminals have: nothing is left out, nothing is cut."""

import importlib.util
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from edgevit.cli.console import console_for
from edgevit.cli.tables import variants_table
from edgevit.report.table import Row, rows


@pytest.fixture(scope="module")
def sample():
    """Return the module of made-up manifests of the tests of reports."""
    place = Path(__file__).parents[1] / "report" / "sample.py"
    spec = importlib.util.spec_from_file_location("cli_report_sample", place)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def drawn(manifest, width, columns=Row._fields):
    out = io.StringIO()
    bundle = SimpleNamespace(manifest=manifest)
    table = variants_table(bundle, [variant.name for variant in manifest.variants], columns)
    Console(file=out, width=width).print(table)
    return out.getvalue()


def figures(cell):
    """Return the parts of a cell, wherever the line is broken between them."""
    return cell.replace("(", "").replace(")", "").split(" ")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("name", ["FULL", "TROUBLED", "EMBEDDING", "MERGED"])
def test_no_figure_is_lost_at_any_width(sample, name, width):
    manifest = getattr(sample, name)
    text = drawn(manifest, width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert max(map(len, text.splitlines())) <= width
    for row in rows(manifest):
        assert all(part in text for cell in row for part in figures(cell))


def test_a_mark_of_doubt_stays_with_its_figure(sample):
    for width in (60, 80, 120, 200):
        text = drawn(sample.TROUBLED, width)
        assert "0.800\N{NO-BREAK SPACE}ms ?" in text
        assert any(
            mark in text
            for mark in (
                "1.60\N{MULTIPLICATION SIGN} ?",
                "1.60\N{MULTIPLICATION SIGN} (1.57\N{EN DASH}1.63) ?",
            )
        )


def test_a_mark_of_doubt_is_explained_where_it_stands(sample):
    said = "? marks a time in doubt"
    assert all(drawn(sample.TROUBLED, width).count(said) == 1 for width in (60, 80, 200))
    assert said not in drawn(sample.TROUBLED, 200, ("variant", "size"))
    assert said not in drawn(sample.FULL, 200)


def test_each_width_has_its_form(sample):
    assert "(91.44" in drawn(sample.TROUBLED, 200)
    wide = drawn(sample.TROUBLED, 120)
    assert "(" not in wide.split("int8-onnxruntime: failed")[0]
    assert "\N{BOX DRAWINGS HEAVY VERTICAL}" in wide
    narrow = drawn(sample.TROUBLED, 80).splitlines()
    assert narrow[0] == "float32-onnxruntime: reference"
    assert narrow[1].startswith("  size 4.93")


def test_names_with_budgets_are_in_one_line_of_each_form(sample):
    for width, columns in ((200, Row._fields), (130, Row._fields), (80, ("variant", "p50", "speedup", "verdict"))):
        lines = drawn(sample.MERGED, width, columns).splitlines()
        assert lines[0].startswith("\N{BOX DRAWINGS HEAVY DOWN AND RIGHT}"), width
        assert len([line for line in lines if "int8-onnxruntime-tokens70 " in line]) == 1


def test_few_columns_stay_a_table_at_80(sample):
    text = drawn(sample.FULL, 80, ("variant", "size", "p50", "speedup", "verdict"))
    assert text.startswith("\N{BOX DRAWINGS HEAVY DOWN AND RIGHT}")


def test_a_pipe_is_wide_unless_columns_are_set(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console_for(io.StringIO()).width == 200
    monkeypatch.setenv("COLUMNS", "80")
    assert console_for(io.StringIO()).width == 80
